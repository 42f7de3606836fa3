"""The memory of models in a worker, divided before a worker takes any of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from heinfer.backends import NativeOptions
from heinfer.backends.memory import Memory
from heinfer.errors import SettingError
from heinfer_server.models import Models


def model_options(models: Models, backend: str, options: NativeOptions, limit: int) -> Mapping[str, NativeOptions]:
    """How each version of a model runs, by its digest, so that all together take no more than a limit in a worker.

    Where their encoded constants do not all fit, the native backend makes some in every evaluation: of what a model may
    take beyond the least every model keeps the same share. A worker evaluates one request at a time, so of intermediate
    results the largest count once.

    Raises:
        SettingError: when they do not fit even so; names the model and the numbers.
    """
    whole = {model.digest: model.memory(backend, options) for model in models}
    running = _running(whole)
    if _constants(whole) + running <= limit:
        return dict.fromkeys(whole, options)
    chosen = dict.fromkeys(whole, options)
    if backend == "native":
        least_options = replace(options, most_constant_bytes=0)
        least = {model.digest: model.memory(backend, least_options) for model in models}
        for _ in range(2):  # what is made in a run needs a place there: how much is known only then
            room = limit - running - _constants(least)
            share = max(0, room) / max(1, _constants(whole) - _constants(least))
            for of, need in whole.items():
                most = least[of].plaintexts + share * (need.plaintexts - least[of].plaintexts)
                chosen[of] = replace(options, most_constant_bytes=most)
            running = _running({m.digest: m.memory(backend, chosen[m.digest]) for m in models})
    _require_room(models, backend, chosen, limit)
    return chosen


def _constants(needs: Mapping[str, Memory]) -> int:
    return sum(need.plaintexts for need in needs.values())


def _running(needs: Mapping[str, Memory]) -> int:
    return max((need.ciphertexts for need in needs.values()), default=0)


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
