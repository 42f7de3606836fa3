"""Layers that an encrypted program can hold, for use in torch models."""

from heinfer.nn.activation import PolyActivation
from heinfer.nn.ffconv import FFConv2d

__all__ = ["FFConv2d", "PolyActivation"]
