"""A convolution in two factors."""

from __future__ import annotations

from torch import Tensor, nn


class FFConv2d(nn.Module):
    """d x d convolution to ``rank`` channels without bias, then 1 x 1 convolution to c_out.

    Takes (B, c_in, H, W) and returns (B, c_out, H', W') with H' = (H + 2 padding - kernel) // stride + 1, as
    ``nn.Conv2d`` does; stride and padding belong to the first factor. Source: FFConv, arXiv 2102.03494.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int | tuple[int, int],
        rank: int,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(c_in, rank, kernel, stride, padding, bias=False)
        self.pointwise = nn.Conv2d(rank, c_out, 1, bias=bias)

    @property
    def rank(self) -> int:
        return self.spatial.out_channels

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.pointwise(self.spatial(x))
        return result
