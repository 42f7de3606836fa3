"""Layers whose weights are circulant in blocks, evaluated in the frequency domain.

A matrix of k x k blocks, each of which is a circulant W[r, s] = w[(r - s) mod k], is block-diagonal after a discrete
Fourier transform of every k channels: the transform of a block's result is the product of the transforms of w and of
its input, frequency by frequency. So a layer is three linear maps, and a convolution has k times fewer weights.
Source: Falcon, NeurIPS 2020.
"""

from __future__ import annotations

from math import pi

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from heinfer.errors import SettingError
from heinfer.nn.sparse_convolution import sparse_convolution


def real_dft(block: int) -> Tensor:
    """The orthogonal matrix (block, block) of the discrete Fourier transform of real numbers, in float64.

    Rows come in pairs, 2f and 2f + 1: the real and the imaginary part of frequency f, times sqrt(2 / block). Both
    frequencies that have no imaginary part, 0 and block / 2, share the first pair, times sqrt(1 / block).
    """
    n = torch.arange(block, dtype=torch.float64)
    frequency = n[: block // 2, None]
    angles = 2 * pi * frequency * n / block
    matrix = torch.stack([angles.cos(), -angles.sin()], 1).reshape(block, block)
    matrix *= (2 / block) ** 0.5
    matrix[0] = block**-0.5
    matrix[1] = (1 - 2 * (n % 2)) * block**-0.5
    return matrix


class BlockDft(nn.Module):
    """The real DFT of every ``block`` channels; takes (B, channels, ...), the last block filled up with zeros.

    Returns as many channels as the blocks have, frequency by frequency: channel q blocks + j is row q of the transform
    (see :func:`real_dft`) of block j.
    """

    def __init__(self, channels: int, block: int) -> None:
        super().__init__()
        _require_block(block)
        self.channels, self.block, self.blocks = channels, block, -(-channels // block)

    def forward(self, x: Tensor) -> Tensor:
        j, q, r = _places(self.blocks, self.block, self.channels)
        matrix = real_dft(self.block).to(x)[q, r][:, None, None]
        outputs, inputs = q * self.blocks + j, j * self.block + r
        return sparse_convolution(x, matrix, outputs, inputs, self.block * self.blocks)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, block={self.block}"


class InverseBlockDft(nn.Module):
    """The inverse of :class:`BlockDft`, cut to ``channels``, and a bias for each of them."""

    def __init__(self, channels: int, block: int, bias: bool = True) -> None:
        super().__init__()
        _require_block(block)
        self.channels, self.block, self.blocks = channels, block, -(-channels // block)
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        j, q, r = _places(self.blocks, self.block, self.channels)
        matrix = real_dft(self.block).to(x)[q, r][:, None, None]
        outputs, inputs = j * self.block + r, q * self.blocks + j
        result = sparse_convolution(x, matrix, outputs, inputs, self.channels)
        return result if self.bias is None else result + self.bias.reshape(-1, *(1,) * (x.dim() - 2))

    def extra_repr(self) -> str:
        return f"channels={self.channels}, block={self.block}, bias={self.bias is not None}"


class SpectralConv2d(nn.Module):
    """What a block-circulant convolution is between the two transforms: every frequency by itself, no bias.

    Takes (B, c_in, H, W) of whole blocks, or (B, c_in) as planes of one element, in the order of :class:`BlockDft`.

    Attributes:
        weight: (blocks out, blocks in, block, height, width): the first column of every circulant.
    """

    def __init__(
        self,
        blocks_in: int,
        blocks_out: int,
        kernel: tuple[int, int],
        block: int,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        _require_block(block)
        self.block, self.stride, self.padding = block, stride, padding
        self.weight = nn.Parameter(torch.empty(blocks_out, blocks_in, block, *kernel))
        bound = (blocks_in * block * kernel[0] * kernel[1]) ** -0.5  # as torch's own layers start
        nn.init.uniform_(self.weight, -bound, bound)

    def grouped_weight(self) -> Tensor:
        """The weight of the convolution of block / 2 groups that this is: (block blocks out, 2 blocks in, *kernel).

        Frequency f multiplies by the complex number u + i v, so a pair (re, im) by ((u, -v), (v, u)); the two real
        frequencies of the first pair by a number each.
        """
        n = torch.arange(self.block, dtype=torch.float64)
        angles = 2 * pi * torch.arange(self.block // 2)[:, None] * n / self.block
        u, v = (
            torch.einsum("fn,ijn...->fij...", m.to(self.weight), self.weight) for m in (angles.cos(), -angles.sin())
        )
        alternating = torch.einsum("n,ijn...->ij...", (1 - 2 * (n % 2)).to(self.weight), self.weight)
        same = torch.cat([alternating[None], u[1:]])  # sin is 0 at frequency 0, so v[0] is
        rows = torch.cat([u, -v], 2), torch.cat([v, same], 2)
        return torch.cat(rows, 1).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Every frequency reads itself; the two real ones, which share a pair, only themselves."""
        blocks_out, blocks_in, block, *kernel = self.weight.shape
        outputs, inputs, place = _channels(blocks_out, blocks_in, block)
        kernels = self.grouped_weight().reshape(-1, *kernel)[place]
        return sparse_convolution(x, kernels, outputs, inputs, block * blocks_out, self.stride, self.padding)

    def extra_repr(self) -> str:
        outputs, inputs, block, *kernel = self.weight.shape
        return (
            f"{inputs}x{block}, {outputs}x{block}, kernel={tuple(kernel)}, stride={self.stride}, padding={self.padding}"
        )


class BlockCirculantConv2d(nn.Module):
    """A convolution whose c_out x c_in matrix is, at every tap, circulant in blocks of ``block`` channels.

    Takes (B, c_in, H, W) and returns what ``nn.Conv2d`` does. Numbers of channels that are no multiples of the block
    are filled up with zeros, which are cut off afterwards. Source: Falcon, NeurIPS 2020.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int | tuple[int, int],
        block: int,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.dft = BlockDft(c_in, block)
        self.inverse = InverseBlockDft(c_out, block, bias)
        sizes = self.dft.blocks, self.inverse.blocks
        self.spectral = SpectralConv2d(*sizes, _pair(kernel), block, _pair(stride), _pair(padding))

    @property
    def block(self) -> int:
        return self.dft.block

    def dense_weight(self) -> Tensor:
        """The weight (c_out, c_in, height, width) of the equal ``nn.Conv2d``."""
        return _expanded(self.spectral.weight)[: self.inverse.channels, : self.dft.channels]

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inverse(self.spectral(self.dft(x)))
        return result


class BlockCirculantLinear(nn.Module):
    """A dense layer whose matrix is circulant in blocks of ``block``; takes (B, inputs), returns (B, outputs)."""

    def __init__(self, inputs: int, outputs: int, block: int, bias: bool = True) -> None:
        super().__init__()
        self.dft = BlockDft(inputs, block)
        self.inverse = InverseBlockDft(outputs, block, bias)
        self.spectral = SpectralConv2d(self.dft.blocks, self.inverse.blocks, (1, 1), block)

    @property
    def block(self) -> int:
        return self.dft.block

    def dense_weight(self) -> Tensor:
        """The weight (outputs, inputs) of the equal ``nn.Linear``."""
        return _expanded(self.spectral.weight)[: self.inverse.channels, : self.dft.channels, 0, 0]

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inverse(self.spectral(self.dft(x)))
        return result


def nearest_circulant(weight: Tensor, block: int) -> Tensor:
    """First columns (blocks out, blocks in, block, ...) of the block-circulant matrices nearest to ``weight``.

    weight: (c_out, c_in, ...). Nearest in the Frobenius norm: each is the mean along a diagonal of a block, of those
    entries that there are.
    """
    _require_block(block)
    filled = [functional.pad(x, (0, 0) * (x.dim() - 2) + _missing(x.shape[1], block) + _missing(x.shape[0], block))
              for x in (weight, torch.ones_like(weight))]  # fmt: skip
    sums, counts = (_sums_along_diagonals(x, block) for x in filled)
    return sums / counts.clamp(min=1)


def _places(blocks: int, block: int, channels: int) -> tuple[Tensor, ...]:
    """Block, row and column of every entry of the transforms of all blocks, without what is filled up."""
    found = np.indices((blocks, block, block)).reshape(3, -1)
    return tuple(torch.tensor(a) for a in found[:, found[0] * block + found[2] < channels])


def _channels(blocks_out: int, blocks_in: int, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Output, input and place in the grouped weight of every pair of channels of a spectral convolution."""
    place = np.arange(block * blocks_out * 2 * blocks_in)
    outputs, inputs = np.divmod(place, 2 * blocks_in)
    q_out, q_in = outputs // blocks_out, outputs // blocks_out // 2 * 2 + inputs // blocks_in
    there = (q_out == q_in) | (q_out > 1)
    inputs = q_in * blocks_in + inputs % blocks_in
    return torch.tensor(outputs[there]), torch.tensor(inputs[there]), torch.tensor(place[there])


def _missing(channels: int, block: int) -> tuple[int, int]:
    return 0, -channels % block


def _sums_along_diagonals(matrix: Tensor, block: int) -> Tensor:
    outputs, inputs, *rest = matrix.shape
    parts = matrix.reshape(outputs // block, block, inputs // block, block, *rest).transpose(1, 2)
    r, s = torch.arange(block)[:, None], torch.arange(block)
    return torch.stack([parts[:, :, (s + d) % block, s].sum(2) for d in r[:, 0]], 2)


def _expanded(weight: Tensor) -> Tensor:
    """The matrices (block blocks out, block blocks in, ...) of first columns (blocks out, blocks in, block, ...)."""
    outputs, inputs, block, *rest = weight.shape
    at = (torch.arange(block)[:, None] - torch.arange(block)) % block
    return weight[:, :, at].transpose(1, 2).reshape(outputs * block, inputs * block, *rest)


def _require_block(block: int) -> None:
    if block < 2 or block & (block - 1):
        raise SettingError(f"blocks hold a power of two of channels, at least 2; got {block}")


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
