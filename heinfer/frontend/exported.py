"""From a module, or what torch.export made of one, to calls of ATen functions."""

from __future__ import annotations

import io
import logging
import operator
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from heinfer.errors import CompileError, ShapeError, UnsupportedOperatorError
from heinfer.frontend.at_inference import is_plain
from heinfer.frontend.calls import Calls, Unknown, Where, holds
from heinfer.frontend.paths import named_modules, users_path
from heinfer.frontend.table import OPERATORS
from heinfer.frontend.values import Value

BATCH = 2
"""Inputs that a graph is made of: two, so that what mixes the inputs of a batch shows."""

_LOGGERS = ("torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes", "torch.export", "torch._dynamo")
_TORCH = Path(torch.__file__).parent
_FRONTEND = Path(__file__).parent
_OF_SHAPES = re.compile(r"shape|size|dimension|\bdim\b|channels|elements")
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in ')
_OF_TORCH = ("torch.", "heinfer.nn.", "heinfer.frontend.onnx.")
"""Modules that stand for the one thing that they do: a call in them has their name."""


def exported(root: nn.Module, input_shape: tuple[int, ...]) -> ExportedProgram:
    """The graph of a module in evaluation mode on two inputs.

    Tried on the forward itself; where that cannot be run on a tensor without values, on what torch.fx makes of it.

    Raises:
        CompileError: when neither can be followed.
    """
    if isinstance(root, Program):
        with _quiet():
            return _functional(root.program)
    kinds = [x.dtype for x in (*root.parameters(), *root.buffers()) if x.is_floating_point()]
    example = torch.zeros(BATCH, *input_shape, dtype=kinds[0] if kinds else torch.get_default_dtype())
    with _quiet(), torch.no_grad():
        try:
            return _functional(torch.export.export(root, (example,), strict=False))
        except Exception as error:  # a forward may do anything
            cause = error
        try:
            return _functional(torch.export.export(fx.symbolic_trace(root), (example,), strict=False))
        except Exception:  # the first says more
            raise _not_followed(root, cause) from cause


class Program(nn.Module):
    """An exported program as a module that takes any batch: in parts of the size that it was exported with."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.program = program
        self.run = [program.module()]  # in a list, as it knows no eval()

    @property
    def batch(self) -> int:
        """Inputs that the program was exported with."""
        named = self.program.graph_signature.user_inputs
        inputs = [x for x in self.program.graph.nodes if x.op == "placeholder" and x.name in named]
        size = inputs[0].meta["val"].shape[0] if inputs and isinstance(inputs[0].meta.get("val"), Tensor) else BATCH
        return size if isinstance(size, int) else BATCH

    def forward(self, x: Tensor) -> Any:
        [run] = self.run
        size = self.batch
        missing = -len(x) % size
        whole = torch.cat([x, x[:1].expand(missing, *x.shape[1:])]) if missing else x
        return torch.cat([run(part) for part in torch.split(whole, size)])[: len(x)]


def _functional(program: ExportedProgram) -> ExportedProgram:
    """Without changes of tensors in place."""
    calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
    if any(getattr(call, "_schema", None) and call._schema.is_mutable for call in calls):
        functional: ExportedProgram = program.run_decompositions({})
        return functional
    return program


def replay(program: ExportedProgram, calls: Calls, value: Value) -> list[tuple[str, Any]]:
    """Take the calls of a program on the value of its input; its outputs by name.

    Raises:
        CompileError: when the program has other inputs than one tensor.
    """
    signature, constants = program.graph_signature, {**program.state_dict, **program.constants}
    kinds = {x.arg.name: x for x in signature.input_specs if hasattr(x.arg, "name")}
    users = {x.arg.name for x in signature.output_specs if x.kind == OutputKind.USER_OUTPUT and hasattr(x.arg, "name")}
    known: dict[fx.Node, Any] = {}
    held: dict[fx.Node, Any] = {}
    left = {node: len(node.users) for node in program.graph.nodes}
    taken = 0

    def read(node: fx.Node) -> Any:
        return _constant(held[node]) if node in held else known[node]  # not all in double precision at once

    for node in program.graph.nodes:
        if node.op == "placeholder":
            spec = kinds.get(node.name)
            if spec is None or spec.kind == InputKind.USER_INPUT:
                if node.users or not taken:
                    taken += 1
                known[node] = value if taken == 1 else Unknown()
                if taken > 1 and node.users:
                    calls.problems.append(
                        UnsupportedOperatorError(f"{node.name}: a network takes one input, this is a second one")
                    )
            else:
                held[node] = constants[spec.target if spec.target is not None else node.name]
        elif node.op == "call_function":
            known[node] = _called(node, calls, read)
            for source in node.all_input_nodes:
                left[source] -= 1
                if not left[source]:
                    known.pop(source, None)  # its places, for every element, are not read again
        elif node.op == "output":
            results = [x for x in pytree.tree_leaves(node.args) if isinstance(x, fx.Node) and x.name in users]
            return list(zip(_names(program), [read(x) for x in results], strict=False))
    raise AssertionError("a graph ends in its output")


def _called(node: fx.Node, calls: Calls, read: Callable[[fx.Node], Any]) -> Any:
    args, kwargs = pytree.tree_map_only(fx.Node, read, (node.args, node.kwargs))
    if node.target is operator.getitem:
        found, place = args
        return Unknown() if isinstance(found, Unknown) else found[place]
    if not isinstance(node.target, OpOverload):  # of numbers that a graph computes
        if isinstance(node.target, str) or holds(args, Value) or holds(args, Unknown):
            return Unknown()
        return node.target(*args, **kwargs)
    shapes = pytree.tree_map(_shape, node.meta.get("val"))
    return calls.call(node.target, args, kwargs, where(node), shapes, readers=len(node.users))


def where(node: fx.Node) -> Where:
    """The path of a call, what it is called, and the line of the user's source."""
    name = node.name
    stack = [entry for entry in node.meta.get("nn_module_stack", {}).values() if entry[0]]
    function = re.sub(r"\W.*", "", str(getattr(node.target, "_schema", node.target)).split("::")[-1])
    line = _line(node.meta.get("stack_trace") or "")
    path, kind = (users_path(stack[-1][0]), str(stack[-1][1])) if stack else ("", "")
    if not path:
        return Where(name, function, line=line)
    if kind.startswith(_OF_TORCH):
        return Where(path, function, kind.rpartition(".")[2], line)
    return Where(f"{path}.{name}", function, line=line)


def _line(trace: str) -> str:
    """The last line of a trace that is not of torch."""
    frames = [(Path(f["file"]), f["line"]) for f in _FRAME.finditer(trace)]
    own = [(file, line) for file, line in frames if _is_of_user(file)]
    return f"{own[-1][0].name}:{own[-1][1]}" if own else ""


def _is_of_user(file: Path) -> bool:
    return file.exists() and not file.is_relative_to(_TORCH) and not file.is_relative_to(_FRONTEND)


def _names(program: ExportedProgram) -> Iterator[str]:
    """Of the outputs, by the keys of what forward returns; "scores" for one tensor."""
    spec = program.call_spec.out_spec
    leaves = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    for path, _ in pytree.tree_flatten_with_path(leaves)[0]:
        yield "_".join(re.sub(r"\W", "", str(getattr(key, "key", getattr(key, "idx", key)))) for key in path)


def _shape(x: Any) -> Any:
    return x.shape if isinstance(x, Tensor) else None


def _constant(x: Any) -> Any:
    """A tensor in double precision; what cannot be read, which is named elsewhere, as zeros."""
    if not isinstance(x, Tensor) or not (x.is_floating_point() or x.is_complex()):
        return x
    if not is_plain(x) or x.device.type != "cpu" or x.is_complex():
        return torch.zeros(x.shape, dtype=torch.float64)
    return x.detach().double()


def _not_followed(root: nn.Module, error: Exception) -> CompileError:
    """What torch says of a forward that cannot be run, and where."""
    text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")
    parts = {id(part): (path, part) for path, part in named_modules(root)}
    path, part, line = "", root, ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        if _is_of_user(file):
            line = f" ({file.name}:{number})"
        path, part = parts.get(id(frame.f_locals.get("self")), (path, part))
    kind = type(part).__name__
    instead = OPERATORS.way_out(kind)
    if instead:
        return UnsupportedOperatorError(f"{path or 'the model itself'}: {kind} has no encrypted form; {instead}")
    if _OF_SHAPES.search(text):
        return ShapeError(f"{path or 'the model itself'}: {text}, where the batch is {BATCH}{line}")
    if "data-dependent" in text:
        text = "it takes another way, or another shape, for other values of its input"
    named = f"{path}: its" if path else "the model's"
    return UnsupportedOperatorError(
        f"{named} forward cannot be followed with any input: {text}{line}; write it as calls of layers and functions "
        "of tensors, without branches on their values"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says on the way to an error: the error says it."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.disabled for logger in loggers]
    unread = io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(unread), redirect_stderr(unread):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.disabled = True
        try:
            yield
        finally:
            for logger, disabled in zip(loggers, before, strict=True):
                logger.disabled = disabled
