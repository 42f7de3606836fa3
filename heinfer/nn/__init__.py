"""Layers that an encrypted program can hold, for use in torch models."""

from heinfer.nn.activation import PolyActivation
from heinfer.nn.chebyshev import ChebyshevActivation
from heinfer.nn.circulant import BlockCirculantConv2d, BlockCirculantLinear
from heinfer.nn.ffconv import FFConv2d

__all__ = ["BlockCirculantConv2d", "BlockCirculantLinear", "ChebyshevActivation", "FFConv2d", "PolyActivation"]
