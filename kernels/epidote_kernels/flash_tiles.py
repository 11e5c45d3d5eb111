"""This file is about what the two flash-style kernels share: the softmax step and the tile sizes.

Source: FlashAttention-2, Dao, 2023 (online softmax, outer loop over queries).
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Iterable, Iterator

import triton
import triton.language as tl
from torch import Tensor

from epidote_kernels.launching import power_of_two
from epidote_kernels.tilings import Tiling, known_tilings, tiling_for


@triton.jit
def softmax_weights(scores, top, total):
    """(weights, factor of what was summed before, new top, new total) of one tile of scores.

    Scores are to base 2, -inf where masked. A row that has seen only masked keys so far keeps
    top = -inf and total = 0.
    """
    new_top = tl.maximum(top, tl.max(scores, 1))
    pivot = tl.where(new_top == float("-inf"), 0.0, new_top)  # -inf minus itself would be NaN
    shrink = tl.exp2(top - pivot)
    weights = tl.exp2(scores - pivot[:, None])
    return weights, shrink, new_top, total * shrink + tl.sum(weights, 1)


@triton.jit
def softmax_step(scores, v, acc, top, total):
    """Take one tile of scores and its values into the running sums; see `softmax_weights`."""
    weights, shrink, top, total = softmax_weights(scores, top, total)
    acc = acc * shrink[:, None]
    acc += tl.dot(weights.to(v.dtype), v, input_precision="ieee")
    return acc, top, total


def padded_dim(dim: int) -> int:
    """The elements of a head's row that a tile holds, where it holds the row in one part."""
    return max(16, power_of_two(dim))


def tiling_key(padded: int, itemsize: int, max_rows: int) -> str:
    """What the tiling depends on; a tile has no more rows than the longest run of queries needs.

    >>> tiling_key(80, 2, 1000), tiling_key(128, 2, 20)
    ('16-bit dim=80 rows=128', '16-bit dim=128 rows=32')
    """
    rows = min(128, max(16, power_of_two(max_rows)))  # tl.dot takes no less than 16
    return f"{8 * itemsize}-bit dim={padded} rows={rows}"


def default_tiling(dim: int, itemsize: int, max_rows: int) -> Tiling:
    """For heads of `dim` and at most `max_rows` queries in one run, without a table.

    Half types: a 128-row tile is two warp groups of Hopper's 64-row matrix instruction. fp32 has no
    such instruction at full precision; its small tiles keep registers from spilling.
    """
    block_dim = padded_dim(dim)
    if itemsize == 4:
        rows, keys, warps = (32, 32, 4) if block_dim <= 64 else (32, 16, 4)
    elif block_dim <= 64:
        rows, keys, warps = 128, 64, 4
    elif block_dim <= 128:
        rows, keys, warps = 128, 128 if max_rows > 64 else 64, 8
    else:
        rows, keys, warps = 64, 32, 4
    rows = min(rows, max(16, power_of_two(max_rows)))
    return Tiling(
        sizes={"BLOCK_ROWS": rows, "BLOCK_KEYS": keys},
        num_warps=4 if rows <= 64 else warps,
        num_stages=3 if itemsize == 2 and block_dim <= 128 else 2,
    )


def flash_tiling(kernel: str, q: Tensor, max_rows: int, padded: int) -> Tiling:
    """How to cut runs of at most `max_rows` queries on q's device, rows padded to `padded`."""
    dim, itemsize = q.shape[2], q.element_size()
    default = default_tiling(dim, itemsize, max_rows)
    return tiling_for(kernel, tiling_key(padded, itemsize, max_rows), default, q.device)


def flash_tilings(
    kernel: str, number: str, sizes: Iterable[tuple[int, int]]
) -> Iterator[tuple[int, Tiling]]:
    """(head dimension, tiling): the rule's for `sizes` (dim, rows), then those of every table."""
    itemsize = 4 if number == "fp32" else 2
    seen = []
    for dim, rows in sizes:
        seen.append((dim, default_tiling(dim, itemsize, rows)))
        yield seen[-1]
    for key, tiling in known_tilings(kernel):
        bits, dim_part, _ = key.split()
        one = int(dim_part.removeprefix("dim=")), tiling
        if bits == f"{8 * itemsize}-bit" and one not in seen:
            seen.append(one)
            yield one
