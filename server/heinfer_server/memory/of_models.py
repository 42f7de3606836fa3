"""The memory of models in a worker, divided before a worker takes any of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from heinfer.backends import NativeOptions
from heinfer.errors import SettingError
from heinfer_server.models import Models


def model_options(models: Models, backend: str, options: NativeOptions, limit: int) -> Mapping[str, NativeOptions]:
    """How each version of a model runs, by its digest, so that all together take no more than a limit in a worker.

    Where their encoded constants do not all fit, the native backend encodes some in every evaluation: every model keeps
    the same share. A worker evaluates one request at a time, so of intermediate results the largest count once.

    Raises:
        SettingError: when they do not fit even so; names the model and the numbers.
    """
    whole = {model.digest: model.memory(backend, options) for model in models}
    constants = sum(need.plaintexts for need in whole.values())
    running = max((need.ciphertexts for need in whole.values()), default=0)
    if constants + running <= limit:
        return dict.fromkeys(whole, options)
    chosen = dict.fromkeys(whole, options)
    if backend == "native":
        share = max(0, limit - running) / constants
        for model in models:
            chosen[model.digest] = replace(options, most_constant_bytes=share * whole[model.digest].plaintexts)
            running = max(running, model.memory(backend, chosen[model.digest]).ciphertexts)
        share = max(0, limit - running) / constants  # what is encoded in a run needs a place there
        chosen = {of: replace(options, most_constant_bytes=share * need.plaintexts) for of, need in whole.items()}
    _require_room(models, backend, chosen, limit)
    return chosen


def _require_room(models: Models, backend: str, options: Mapping[str, NativeOptions], limit: int) -> None:
    plaintexts = ciphertexts = 0
    for model in models:
        need = model.memory(backend, options[model.digest])
        plaintexts += need.plaintexts
        ciphertexts = max(ciphertexts, need.ciphertexts)
        if plaintexts + ciphertexts > limit:
            raise SettingError(
                f"{model.title} needs {need.plaintexts} bytes for its weights in every worker and {need.ciphertexts} "
                f"to evaluate: {plaintexts + ciphertexts} with the models before it, and models may take {limit}; "
                "serve fewer models or versions, or raise HEINFER_SERVER_MODEL_MEMORY"
            )
