"""How each reference network is trained. Every number was chosen on the held-out images, except how many epochs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from heinfer.zoo.augment import Augmentation, Distortion, FlipAndShift


@dataclass(frozen=True)
class Recipe:
    """AdamW under a one-cycle learning rate: linear warm-up, then a cosine to zero.

    A value |x| above its limit, ``range_limit`` before an activation and ``score_limit`` for the scores, costs
    ``range_penalty`` (|x| - limit)^2, summed over an image: the encrypted program's scales must hold the largest
    value, and its precision is relative to that.

    label_smoothing: share of the target that all classes get alike. bfloat16: forward and backward passes compute in
    it where torch's autocast holds that to be harmless, on images in the channels-last format; weights, sums and the
    optimizer stay float32.
    """

    epochs: int
    learning_rate: float
    weight_decay: float = 1e-2
    batch_size: int = 128
    warm_up: float = 0.2
    gradient_norm: float = 1.0
    range_limit: float = 8.0
    score_limit: float = 15.0
    range_penalty: float = 1e-3
    label_smoothing: float = 0.0
    bfloat16: bool = False
    augmentation: Augmentation = field(
        default_factory=lambda: Distortion(rotation=10, shift=1.5, scale=0.12, shear=0.1, elastic=0.8)
    )


FULL = Recipe(epochs=80, learning_rate=1e-2)
"""As long as about ten minutes on one core allow. Also for a network factorized from a trained one: rank 4 of 32
loses much, so the rate starts high again."""

SHORT = Recipe(epochs=20, learning_rate=1e-2)
"""For networks that are there to be compared with others' encrypted ones."""

COLOUR = Recipe(
    epochs=16,
    learning_rate=1e-2,
    weight_decay=5e-2,
    label_smoothing=0.1,
    bfloat16=True,
    augmentation=FlipAndShift(shift=3),
)
"""CIFAR-10, in about ten minutes on one core with bfloat16."""

COLOUR_SMALL = replace(COLOUR, epochs=40)
"""For a small network, whose epochs are short."""

COLOUR_LONG = replace(COLOUR, epochs=30, learning_rate=8e-3, augmentation=FlipAndShift(shift=3, hole=8))
"""For a deeper network."""

COLOUR_WIDE = replace(COLOUR, epochs=40)
"""For LoLa's network, whose epochs are long."""

COLOUR_TUNED = COLOUR_WIDE
"""For a network made from LoLa's: as long as its own training, as much is lost at first."""

COLOUR_BRIEF = replace(COLOUR, epochs=12, learning_rate=5e-3)
"""The same, to compare ranks and block sizes."""
