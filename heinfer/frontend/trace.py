"""From what a user brings to the network that it computes: a module, or a program that torch.export made of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram

from heinfer.errors import CompileError, UnsupportedOperatorError
from heinfer.extras import needs
from heinfer.frontend.at_inference import at_inference
from heinfer.frontend.calls import Calls, Unknown
from heinfer.frontend.exported import BATCH, Program, exported, replay
from heinfer.frontend.problems import require_none
from heinfer.frontend.recorder import Recorder
from heinfer.frontend.survey import still_training, survey
from heinfer.frontend.table import OPERATORS
from heinfer.frontend.values import Value
from heinfer.network.ir import Network

if TYPE_CHECKING:
    from onnx import ModelProto

Model: TypeAlias = "nn.Module | ExportedProgram | ModelProto | str | Path"
Results: TypeAlias = list[tuple[str, object]]
_Calls = TypeVar("_Calls", bound=Calls)


def trace(model: Model, input_shape: tuple[int, ...]) -> Network:
    """Return the network that a model computes in evaluation mode; a module stays as it is.

    Args:
        model: of functions that have an encrypted form (docs/operators.md); its weights are read as float64.
        input_shape: shape of one input without the batch axis.

    Raises:
        CompileError: when it is no model, such as a state_dict, or its weights cannot be read.
        UnsupportedOperatorError: names each function that has no encrypted form, the path of its module, and the line.
        ShapeError: names the layer whose input does not fit.
    """
    calls, results, problems = followed(module_of(model), input_shape, lambda recorder: Calls(recorder, OPERATORS))
    require_none(problems)
    return network_of(calls.recorder, results)


def followed(
    module: nn.Module, input_shape: tuple[int, ...], calls_on: Callable[[Recorder], _Calls]
) -> tuple[_Calls, Results, list[CompileError]]:
    """Take every call of a module in evaluation mode, as ``calls_on(recorder)`` takes calls.

    Returns:
        What took the calls, what the module returns, by name, and all that is wrong with the module and its calls.

    Raises:
        CompileError: when the forward cannot be followed; says also what is wrong with the module.
    """
    found = survey(module)
    with at_inference(module) as root:
        problems = [*found.problems, *still_training(root)]
        try:
            program = exported(root, input_shape)
        except CompileError as error:
            if not problems:
                raise
            require_none([*problems, error])
        calls = calls_on(Recorder(input_shape, root.batch if isinstance(root, Program) else BATCH))
        results = replay(program, calls, calls.recorder.input)
    inside = tuple(f"{path}." for path in found.unreadable)
    problems += [p for p in calls.problems if not str(p).replace(":", ".").startswith(inside)]
    return calls, results, problems


def network_of(recorder: Recorder, results: Results) -> Network:
    """Of the one output that there is."""
    if len(results) != 1:
        names = ", ".join(name for name, _ in results)
        raise UnsupportedOperatorError(f"output: returns {len(results)} tensors, {names}: return one, by torch.cat")
    [(_, result)] = results
    recorder.name = "output"
    if isinstance(result, Tensor | Unknown) or not isinstance(result, Value):
        raise UnsupportedOperatorError("output: does not depend on the input of the network")
    if len(result.shape) == 1:
        raise UnsupportedOperatorError(
            "output: has one number for each input and no axis for it: leave out the squeeze at the end, or add the "
            "axis by unsqueeze(1)"
        )
    try:
        return recorder.network(result)
    except UnsupportedOperatorError as error:
        raise UnsupportedOperatorError(f"output: {error}") from None


def plain_module(model: object) -> nn.Module:
    """A module of a model that shows its activations, for what replaces those; it takes any batch that the model does.

    Raises:
        CompileError, SettingError: as module_of.
    """
    if isinstance(model, ExportedProgram):
        return model.module()
    module = module_of(model)
    if type(module).__name__ != "OnnxModule":
        return module
    from heinfer.frontend.onnx import as_graph

    return as_graph(module)  # type: ignore[arg-type]  # its class has been looked at


def module_of(model: object, inputs: NDArray[np.float64] | None = None) -> nn.Module:
    """The module of a model: itself, that of an exported program, or that of an ONNX file.

    Args:
        inputs: (batch, *shape), on some of which an ONNX file's is compared with onnx's own evaluation.

    Raises:
        CompileError: says what else it is; for an ONNX file that is none, or is not what it is read as.
        SettingError: when onnx is not installed.
    """
    if isinstance(model, nn.Module) and not isinstance(model, torch.jit.ScriptModule):
        return model
    if isinstance(model, ExportedProgram):
        return Program(model)
    if isinstance(model, str | Path) or type(model).__name__ == "ModelProto":
        with needs("onnx"):
            from heinfer.frontend.onnx import OnnxModule, require_reference
        read = OnnxModule(model).eval()  # type: ignore[arg-type]  # what it is has been looked at
        if inputs is not None:
            require_reference(read, inputs)
        return read
    if isinstance(model, nn.Module):
        found = "a TorchScript module, whose layers cannot be read: "
    elif isinstance(model, Mapping):
        found = "a state_dict or other mapping: build the network, load the state_dict into it, and "
    elif isinstance(model, type):
        found = f"the class {model.__name__}: make one of it, load its weights, and "
    else:
        found = f"a {type(model).__name__}: "
    raise CompileError(f"the model is {found}give the nn.Module itself")
