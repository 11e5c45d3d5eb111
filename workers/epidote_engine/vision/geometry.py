"""This file is about where a picture's patches lie: orders, windows, positions; numpy, no torch.

Patches come in the order that merging wants: frame by frame, then merge group by merge group (row
by row), then the merge² patches inside a group (row by row). Everything here depends on one
frame's grid alone, hence the caches.
Source: Qwen2-VL (Wang et al. 2024, arXiv 2409.12191), Qwen2.5-VL (Bai et al. 2025, arXiv
2502.13923: window attention), Qwen3-VL (Bai et al. 2025, arXiv 2511.21631: learned positions).
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]

_CACHED_GRIDS = 256  # a fleet sees few distinct sizes; an entry of 1 megapixel takes about 0.2 MB


@lru_cache(maxsize=_CACHED_GRIDS)
def patch_positions(height: int, width: int, merge: int) -> IntArray:
    """(row, column) of every patch of one frame in patch order: [height · width, 2]."""
    rows, columns = np.indices((height, width))
    groups = (height // merge, merge, width // merge, merge)
    ordered = [axis.reshape(groups).swapaxes(1, 2).ravel() for axis in (rows, columns)]
    return np.stack(ordered, axis=1).astype(np.int64)


@lru_cache(maxsize=_CACHED_GRIDS)
def window_order(height: int, width: int, side: int) -> tuple[IntArray, IntArray]:
    """Sort one frame's merge groups (a `height` × `width` grid of them) by attention window.

    Windows are `side` × `side` groups, row by row; those at the right and bottom edges are smaller.
    Returns (order, sizes): window-sorted place i holds group `order[i]`, and `sizes` counts each
    window's groups.
    """
    rows, columns = np.indices((height, width))
    windows_across = -(-width // side)
    window = (rows // side) * windows_across + columns // side
    place = (window * side + rows % side) * side + columns % side
    order = np.argsort(place.ravel(), kind="stable").astype(np.int64)
    return order, np.bincount(window.ravel()).astype(np.int64)


@lru_cache(maxsize=_CACHED_GRIDS)
def interpolation_taps(
    height: int, width: int, merge: int, side: int
) -> tuple[IntArray, FloatArray]:
    """How to resample a `side` × `side` table of learned positions to one frame's grid.

    Bilinear, corners on corners. Returns (indices, weights), each [height · width, 4] in patch
    order: a patch's position is the sum of weight · table[index].
    """
    position = patch_positions(height, width, merge)
    row_taps, row_weights = _axis_taps(position[:, 0], height, side)
    column_taps, column_weights = _axis_taps(position[:, 1], width, side)
    indices = row_taps[:, :, None] * side + column_taps[:, None, :]
    weights = row_weights[:, :, None] * column_weights[:, None, :]
    return indices.reshape(-1, 4), weights.reshape(-1, 4)


def _axis_taps(index: IntArray, size: int, side: int) -> tuple[IntArray, FloatArray]:
    """The two nearest table entries of each position on one axis, and their weights: [n, 2]."""
    # float32 throughout, multiplication before division: rounding then agrees with transformers
    source = index.astype(np.float32) * np.float32(side - 1) / np.float32(max(size - 1, 1))
    below = np.floor(source)
    above_weight = source - below
    taps = np.stack([below, below + 1], axis=1).astype(np.int64)
    weights = np.stack([1 - above_weight, above_weight], axis=1)
    return np.clip(taps, 0, side - 1), weights.astype(np.float32)


def cumulative(lengths: IntArray) -> NDArray[np.int32]:
    """[0, l0, l0 + l1, …] as int32: the boundaries of packed sequences."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
