"""This file is about what the two flash-style kernels share: the softmax step and the tile sizes.

Source: FlashAttention-2, Dao, 2023 (online softmax, outer loop over queries).
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

import triton
import triton.language as tl

from epidote_kernels.launching import power_of_two


@triton.jit
def softmax_step(scores, v, acc, top, total):
    """Take one tile of base-2 scores, -inf where masked, and its values into the running sums.

    A row that has seen only masked keys so far keeps top = -inf, total = 0 and acc = 0.
    """
    new_top = tl.maximum(top, tl.max(scores, 1))
    pivot = tl.where(new_top == float("-inf"), 0.0, new_top)  # -inf minus itself would be NaN
    shrink = tl.exp2(top - pivot)
    weights = tl.exp2(scores - pivot[:, None])
    total = total * shrink + tl.sum(weights, 1)
    acc = acc * shrink[:, None]
    acc += tl.dot(weights.to(v.dtype), v, input_precision="ieee")
    return acc, new_top, total


def flash_tiles(dim: int, itemsize: int, max_rows: int) -> tuple[dict[str, int], int, int]:
    """Constants, warps and stages for heads of `dim` and at most `max_rows` queries in one run.

    Half types: a 128-row tile is two warp groups of Hopper's 64-row matrix instruction. fp32 has no
    such instruction at full precision; its small tiles keep registers from spilling.
    """
    block_dim = max(16, power_of_two(dim))
    if itemsize == 4:
        rows, keys, warps = (32, 32, 4) if block_dim <= 64 else (32, 16, 4)
    elif block_dim <= 64:
        rows, keys, warps = 128, 64, 4
    elif block_dim <= 128:
        rows, keys, warps = 128, 64, 8
    else:
        rows, keys, warps = 64, 32, 4
    rows = min(rows, max(16, power_of_two(max_rows)))  # tl.dot takes no less than 16
    constants = {"DIM": dim, "BLOCK_ROWS": rows, "BLOCK_KEYS": keys, "BLOCK_DIM": block_dim}
    return constants, 4 if rows <= 64 else warps, 3 if itemsize == 2 and block_dim <= 128 else 2
