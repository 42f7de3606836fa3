"""How each reference network is trained. Every number was chosen on the held-out images, except how many epochs."""

from __future__ import annotations

from dataclasses import dataclass, field

from heinfer.zoo.augment import Augmentation


@dataclass(frozen=True)
class Recipe:
    """AdamW under a one-cycle learning rate: linear warm-up, then a cosine to zero.

    A value |x| above its limit, ``range_limit`` before an activation and ``score_limit`` for the scores, costs
    ``range_penalty`` (|x| - limit)^2, summed over an image: the encrypted program's scales must hold the largest
    value, and its precision is relative to that.
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
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(rotation=10, shift=1.5, scale=0.12, shear=0.1, elastic=0.8)
    )


FULL = Recipe(epochs=80, learning_rate=1e-2)
"""As long as about ten minutes on one core allow. Also for a network factorized from a trained one: rank 4 of 32
loses much, so the rate starts high again."""

SHORT = Recipe(epochs=20, learning_rate=1e-2)
"""For networks that are there to be compared with others' encrypted ones."""
