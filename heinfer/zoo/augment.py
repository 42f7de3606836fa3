"""Random small distortions of images, as torch computes them."""

from __future__ import annotations

from dataclasses import dataclass
from math import radians
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Augmentation(Protocol):
    """Distorts images at random."""

    def __call__(self, images: Tensor, background: float, generator: torch.Generator) -> Tensor:
        """Return (B, C, H, W) images like ``images``; what comes in from outside the image is ``background``."""


@dataclass(frozen=True)
class Distortion:
    """Every image gets an affine map drawn uniformly from plus/minus these bounds, and an elastic distortion.

    rotation in degrees, shift in pixels, scale as a share (each axis on its own), shear as the slope of a vertical;
    elastic: standard deviation, in pixels, of displacements at the points of a 7 x 7 grid, bicubic between them
    (after Simard, Steinkraus, Platt: Best Practices for Convolutional Neural Networks, ICDAR 2003).
    """

    rotation: float
    shift: float
    scale: float
    shear: float
    elastic: float

    def __call__(self, images: Tensor, background: float, generator: torch.Generator) -> Tensor:
        """Return (B, C, H, W) images like ``images``; what comes in from outside the image is ``background``."""
        batch, _, height, width = images.shape
        angle, scale_x, scale_y, shift_x, shift_y, shear = 2 * torch.rand(6, batch, generator=generator) - 1
        angle = angle * radians(self.rotation)
        scale_x, scale_y = 1 + scale_x * self.scale, 1 + scale_y * self.scale
        # affine_grid maps output to input coordinates; both run over [-1, 1].
        shift_x, shift_y = shift_x * self.shift * 2 / width, shift_y * self.shift * 2 / height
        cos, sin = angle.cos(), angle.sin()
        rows = (
            torch.stack((cos * scale_x, -sin * scale_y + shear * self.shear, shift_x), 1),
            torch.stack((sin * scale_x, cos * scale_y, shift_y), 1),
        )
        grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
        moves = torch.randn(batch, 2, 7, 7, generator=generator) * self.elastic
        moves = functional.interpolate(moves, (height, width), mode="bicubic", align_corners=False)
        grid = grid + moves.permute(0, 2, 3, 1) * torch.tensor((2 / width, 2 / height))
        return functional.grid_sample(images - background, grid, align_corners=False) + background


@dataclass(frozen=True)
class FlipAndShift:
    """Every second image, at random, is mirrored left to right; each moves by up to ``shift`` pixels along each axis.

    A square of ``hole`` pixels a side, centred anywhere in the image before it moves, becomes background; 0 for none
    (DeVries, Taylor: Improved Regularization of Convolutional Neural Networks with Cutout, arXiv 1708.04552).
    """

    shift: int
    hole: int = 0

    def __call__(self, images: Tensor, background: float, generator: torch.Generator) -> Tensor:
        """Return (B, C, H, W) images like ``images``; what comes in from outside the image is ``background``."""
        batch, channels, height, width = images.shape
        mirrored = torch.rand(batch, generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        if self.hole:
            rows, columns = (self._hole(batch, size, generator) for size in (height, width))
            images = images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], background)
        images = functional.pad(images, (self.shift,) * 4, value=background)
        down, right = torch.randint(0, 2 * self.shift + 1, (2, batch, 1), generator=generator)
        rows, columns = down + torch.arange(height), right + torch.arange(width)
        which, channel = torch.arange(batch)[:, None, None, None], torch.arange(channels)[None, :, None, None]
        return images[which, channel, rows[:, None, :, None], columns[:, None, None, :]]

    def _hole(self, batch: int, size: int, generator: torch.Generator) -> Tensor:
        """Whether the hole covers each position along one axis: (batch, size)."""
        start = torch.randint(0, size, (batch, 1), generator=generator) - self.hole // 2
        at = torch.arange(size)
        return (at >= start) & (at < start + self.hole)
