"""Tuning a network whose activations become polynomials, with the network that it was as its teacher."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from heinfer.brief import brief_repr
from heinfer.convert.polynomials.sites import Site
from heinfer.tell import Tell, say_nothing


@dataclass(frozen=True)
class Tuning:
    """How a network is tuned.

    Attributes:
        epochs: how often it sees all data; 0 for not at all.
        learning_rate: of AdamW, falling to nothing as a cosine does.
        batch: inputs in a step.
        labels: weight of the cross entropy with the labels that the data have, beside what the teacher says.
        range_penalty: weight of the square of what leaves an interval, in parts of its radius.
        staged: part of the steps in which polynomials take the place of activations little by little.
        held_out: how many inputs, the last of the data, are kept out; what the report says is then of them.
        augment: changes inputs at random as ``augment(inputs, generator)``; None for not at all.
        bfloat16: whether autocast computes in it; weights stay as they are.
        checkpoint: a file to go on from, written after every epoch; None for none. One of another network, other data
            or other settings is not taken up, but written over.
        seed: of the order of the data and their augmentation.
    """

    epochs: int = 0
    learning_rate: float = 1e-3
    batch: int = 64
    labels: float = 0.0
    range_penalty: float = 1.0
    staged: float = 0.5
    held_out: int = 0
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    bfloat16: bool = False
    checkpoint: Path | None = None
    seed: int = 0

    __repr__ = brief_repr


_CLIP = 1.0


def tune(
    student: nn.Module,
    teacher: nn.Module,
    sites: Sequence[Site],
    data: Tensor,
    tuning: Tuning,
    tell: Tell = say_nothing,
    labels: Tensor | None = None,
) -> None:
    """Tune the student in place on inputs (n, ...): the teacher's scores are what it learns, and labels (n,) if given.

    It may be stopped and begun again from its checkpoint: the same steps follow.
    """
    optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], tuning.learning_rate)
    steps = tuning.epochs * -(-len(data) // tuning.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    identity = _identity(student, data, labels, tuning)
    first = _resumed(student, optimizer, schedule, tuning, identity)
    teacher.eval()
    for epoch in range(first, tuning.epochs):
        generator = torch.Generator().manual_seed(1_000_003 * tuning.seed + epoch)
        order = torch.randperm(len(data), generator=generator)
        student.train()
        for number, some in enumerate(torch.split(order, tuning.batch)):
            done = epoch * -(-len(data) // tuning.batch) + number
            tell("tune", done, steps)
            for site in sites:
                site.share = min(1.0, (done + 1) / max(1.0, tuning.staged * steps))
            optimizer.zero_grad()
            x = data[some] if tuning.augment is None else tuning.augment(data[some], generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=tuning.bfloat16):
                loss = _loss(student, teacher, sites, x, None if labels is None else labels[some], tuning)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(student.parameters(), _CLIP)
            optimizer.step()
            schedule.step()
        _saved(student, optimizer, schedule, epoch, tuning, identity)
    for site in sites:
        site.share = 1.0
    student.eval()


def _loss(
    student: nn.Module, teacher: nn.Module, sites: Sequence[Site], x: Tensor, labels: Tensor | None, tuning: Tuning
) -> Tensor:
    with torch.no_grad():
        wanted = teacher(x).float() if tuning.bfloat16 else teacher(x)
    scores = student(x).to(wanted)
    if scores.dim() == 2 and scores.shape[1] > 1:
        target = functional.log_softmax(wanted, 1)
        loss = functional.kl_div(functional.log_softmax(scores, 1), target, log_target=True, reduction="batchmean")
    else:
        loss = functional.mse_loss(scores, wanted)
    if labels is not None and tuning.labels:
        loss = loss + tuning.labels * functional.cross_entropy(scores, labels)
    excess = torch.stack([site.excess for site in sites]).sum() if sites else loss.new_zeros(())
    return loss + tuning.range_penalty * excess


def _identity(student: nn.Module, data: Tensor, labels: Tensor | None, tuning: Tuning) -> str:
    """Of what a tuning begins with: another one is not gone on with. Labels count where they are learned."""
    settings = replace(tuning, checkpoint=None, augment=None)
    said = [getattr(settings, field.name) for field in fields(settings) if field.name != "labels" or tuning.labels]
    digest = hashlib.sha256(repr([*said, tuning.augment is None]).encode())
    learned = [labels] if labels is not None and tuning.labels else []
    for value in (*student.state_dict().values(), data, *learned):
        digest.update(value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _resumed(
    student: nn.Module, optimizer: torch.optim.Optimizer, schedule: object, tuning: Tuning, identity: str
) -> int:
    """The first epoch that is left, from a checkpoint where there is one of this very tuning."""
    if tuning.checkpoint is None or not tuning.checkpoint.exists():
        return 0
    held = torch.load(tuning.checkpoint, weights_only=True)
    if held.get("identity") != identity:
        return 0
    student.load_state_dict(held["student"])
    optimizer.load_state_dict(held["optimizer"])
    schedule.load_state_dict(held["schedule"])  # type: ignore[attr-defined]
    return int(held["epoch"]) + 1


def _saved(
    student: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: object,
    epoch: int,
    tuning: Tuning,
    identity: str,
) -> None:
    if tuning.checkpoint is None:
        return
    held = {
        "student": student.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),  # type: ignore[attr-defined]
        "epoch": epoch,
        "identity": identity,
    }
    partial = tuning.checkpoint.with_suffix(".partial")
    torch.save(held, partial)
    partial.replace(tuning.checkpoint)
