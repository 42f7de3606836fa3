"""The operators: what every ATen function that has an encrypted form means."""

from __future__ import annotations

from heinfer.frontend import elementwise, layers, resampling
from heinfer.frontend.calls import Table
from heinfer.frontend.ways_out import way_out

_SHAPES = """view reshape _unsafe_view _reshape_alias view_as reshape_as flatten unflatten squeeze unsqueeze permute
    transpose t movedim moveaxis swapaxes swapdims contiguous clone detach alias lift_fresh_copy"""
_SELECTIONS = """slice select narrow chunk split split_with_sizes unsafe_chunk unsafe_split unsafe_split_with_sizes
    tensor_split hsplit vsplit dsplit unbind index_select index gather take diagonal tril triu unfold im2col"""
_TOGETHER = "cat concat concatenate stack hstack vstack dstack column_stack"
_MOVES = """flip fliplr flipud roll rot90 pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle
    expand expand_as broadcast_to repeat repeat_interleave tile"""
_BORDERS = """pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
    replication_pad2d replication_pad3d"""
_NEAREST = """upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d"""
_WRITES = "select_scatter slice_scatter diagonal_scatter index_put index_fill masked_fill"

OPERATORS = Table(
    frozenset(" ".join((_SHAPES, _SELECTIONS, _TOGETHER, _MOVES, _BORDERS, _NEAREST, _WRITES)).split()),
    elementwise.RULES | layers.RULES | resampling.RULES,
    way_out,
)
