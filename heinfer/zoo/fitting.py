"""One stage of training: a network, images, a recipe; seeded and resumable epoch by epoch."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from heinfer.errors import DataError
from heinfer.nn import PolyActivation
from heinfer.zoo.checkpoint import read_tensors, write_tensors
from heinfer.zoo.recipes import Recipe

_MODEL, _FIRST, _SECOND = "model.", "first_moment.", "second_moment."


@dataclass(frozen=True, eq=False)
class Labelled:
    """Normalised images float32 (n, channels, height, width) and labels int64 (n,); ``background`` fills what
    an augmentation moves in.
    """

    images: Tensor
    labels: Tensor
    background: float


class Watcher(Protocol):
    """Is told how a stage gets on."""

    def on_batch(self, done: int, total: int, loss: float) -> None:
        """``done`` of ``total`` batches of the stage are through."""

    def on_epoch(self, epoch: int, module: nn.Module) -> None:
        """``epoch`` epochs are through."""


def fit(
    module: nn.Module,
    data: Labelled,
    recipe: Recipe,
    *,
    seed: int,
    epochs: int,
    state: Path,
    watcher: Watcher,
    device: str = "cpu",
) -> float:
    """Train ``module`` in place, on a device where it then stays; return the seconds, interrupted runs included.

    ``state`` is written after every epoch. When it already holds the same training (module, recipe, seed, images),
    the training goes on from there and ends as it would have without the interruption: everything random is drawn
    anew for every epoch, from seed and epoch, on the processor whatever the device. The caller removes the file.
    """
    run = _Run(
        module, recipe, f"{recipe} seed={seed} epochs={epochs} images={len(data.labels)} {_digest(module)}", device
    )
    epoch, seconds = run.resume(state)
    if epoch:
        watcher.on_epoch(epoch, module)
    batches = max(1, len(data.labels) // recipe.batch_size)
    while epoch < epochs:
        start = time.monotonic()
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        module.train()
        order = torch.randperm(len(data.labels), generator=generator)
        for batch, chosen in enumerate(torch.split(order, recipe.batch_size)[:batches]):
            step = epoch * batches + batch
            images = recipe.augmentation(data.images[chosen], data.background, generator)
            loss = run.step(images, data.labels[chosen], one_cycle(step / (epochs * batches), recipe))
            watcher.on_batch(step + 1, epochs * batches, loss)
        epoch += 1
        seconds += time.monotonic() - start
        run.save(state, epoch, seconds)
        watcher.on_epoch(epoch, module)
    return seconds


def one_cycle(progress: float, recipe: Recipe) -> float:
    """Learning rate when the share ``progress`` of all steps is done: linear up to the warm-up's end, then cosine."""
    if progress < recipe.warm_up:
        return recipe.learning_rate * (0.04 + 0.96 * progress / recipe.warm_up)
    return recipe.learning_rate * (1 + cos(pi * (progress - recipe.warm_up) / (1 - recipe.warm_up))) / 2


class _Run:
    """A network with its optimizer, and the two as tensors in a file."""

    def __init__(self, module: nn.Module, recipe: Recipe, fingerprint: str, device: str) -> None:
        self.module = module.to(device)
        self.device = device
        if recipe.bfloat16:
            _store_channels_last(module)
        self.recipe = recipe
        self.fingerprint = fingerprint
        parameters = list(module.parameters())
        self.optimizer = torch.optim.AdamW(
            [  # biases, batch norm and activation coefficients do not decay
                {"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
                {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
            ]
        )

    def step(self, images: Tensor, labels: Tensor, learning_rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        loss = self._loss(images.to(self.device), labels.to(self.device))
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.gradient_norm)
        self.optimizer.step()
        return loss.item()

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        seen: list[Tensor] = []
        hooks = [
            m.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
            for m in self.module.modules()
            if isinstance(m, PolyActivation)
        ]
        with torch.autocast(self.device, torch.bfloat16, enabled=self.recipe.bfloat16):
            scores = self.module(self._arranged(images)).float()
        for hook in hooks:
            hook.remove()
        loss = functional.cross_entropy(scores, labels, label_smoothing=self.recipe.label_smoothing)
        loss = loss + self._excess(scores, self.recipe.score_limit)
        for x in seen:
            loss = loss + self._excess(x.float(), self.recipe.range_limit)
        return loss

    def _arranged(self, images: Tensor) -> Tensor:
        """Images in the memory format that is fastest."""
        return images.contiguous(memory_format=torch.channels_last) if self.recipe.bfloat16 else images

    def _excess(self, x: Tensor, limit: float) -> Tensor:
        return self.recipe.range_penalty * functional.relu(x.abs() - limit).square().sum() / len(x)

    def save(self, path: Path, epoch: int, seconds: float) -> None:
        tensors = {_MODEL + name: value for name, value in self.module.state_dict().items()}
        for name, parameter in self.module.named_parameters():
            moments = self.optimizer.state[parameter]
            tensors[_FIRST + name], tensors[_SECOND + name] = moments["exp_avg"], moments["exp_avg_sq"]
            tensors["step"] = moments["step"]
        header = {"fingerprint": self.fingerprint, "epoch": epoch, "seconds": seconds}
        write_tensors(path, tensors, json.dumps(header))

    def resume(self, path: Path) -> tuple[int, float]:
        """Take up what ``path`` holds of this very training; return the epochs and seconds done."""
        try:
            tensors, text = read_tensors(path)
            header = json.loads(text)
        except (DataError, ValueError):
            return 0, 0.0
        if header["fingerprint"] != self.fingerprint:
            return 0, 0.0
        self.module.load_state_dict(
            {name.removeprefix(_MODEL): value for name, value in tensors.items() if name.startswith(_MODEL)}
        )
        for name, parameter in self.module.named_parameters():
            self.optimizer.state[parameter] = {
                "step": tensors["step"].clone(),
                "exp_avg": tensors[_FIRST + name].to(self.device),
                "exp_avg_sq": tensors[_SECOND + name].to(self.device),
            }
        return int(header["epoch"]), float(header["seconds"])


def _store_channels_last(module: nn.Module) -> None:
    """Store the kernels of convolutions as bfloat16 convolutions read them fastest."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _digest(module: nn.Module) -> str:
    """Of all values a module starts from."""
    digest = hashlib.sha256()
    for value in module.state_dict().values():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
