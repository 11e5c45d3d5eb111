"""This file is about matrix products of few rows with weights in 8 bits on a GPU.

A decode step reads every weight once for a handful of rows: bytes are what it costs, so half of
them is up to twice the speed, and the conversion to the activations' type hides behind the loads.
With few output columns the sum is split over K as well, so that there are programs for every
multiprocessor; the parts are added in a fixed order.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from epidote_kernels.launching import (
    INTERPRETED,
    Form,
    divided_up,
    launching_on,
    num_multiprocessors,
)

MAX_SPLITS = 8  # a part is written and read once more: N·M·4 bytes each


@dataclass(frozen=True)
class Tile:
    """Rows, columns and depth of one program's product, warps and stages; not tuned yet."""

    rows: int
    columns: int
    depth: int
    num_warps: int
    num_stages: int


# the tensor cores want 16 rows at least; more than 64 rows are the business of another kernel
TILES = {
    16: Tile(16, 64, 256, 4, 4),
    32: Tile(32, 64, 128, 4, 4),
    64: Tile(64, 128, 128, 4, 4),
}


@triton.jit(do_not_specialize=("num_rows",))  # the batch's size: no new compilation for it
def quantized_linear_kernel(
    x_ptr,
    weight_ptr,
    scales_ptr,
    out_ptr,
    num_rows,
    num_columns,
    x_stride,
    weight_stride,
    split_stride,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    WIDE: tl.constexpr,
):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(2)
    has_column, has_row = column < num_columns, row < num_rows
    start = split * split_stride
    end = tl.minimum(start + split_stride, weight_stride)
    xs = x_ptr + row[:, None].to(tl.int64) * x_stride
    weights = weight_ptr + column[None, :].to(tl.int64) * weight_stride
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for at in range(start, end, DEPTH):
        k = at + tl.arange(0, DEPTH)
        inside = k < end
        x = tl.load(xs + k[None, :], mask=has_row[:, None] & inside[None, :], other=0.0)
        weight = tl.load(
            weights + k[:, None], mask=has_column[None, :] & inside[:, None], other=0.0
        )
        if WIDE:
            total += tl.dot(x.to(tl.float32), weight.to(tl.float32), input_precision="ieee")
        else:
            total = tl.dot(x, weight.to(x.dtype), total)
    total *= tl.load(scales_ptr + column, mask=has_column, other=0.0)[None, :]
    places = (split * num_rows + row[:, None]).to(tl.int64) * num_columns + column[None, :]
    tl.store(
        out_ptr + places,
        total.to(out_ptr.dtype.element_ty),
        mask=has_row[:, None] & has_column[None, :],
    )


def quantized_linear(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """The kernel behind `ops.quantized_linear`, which checks; twin: `reference`'s."""
    num_rows, depth = x.shape
    num_columns = weight.shape[0]
    if not num_rows or not num_columns:
        return x.new_empty(num_rows, num_columns)
    tile = TILES[next((rows for rows in TILES if rows >= num_rows), 64)]
    grid = (divided_up(num_columns, tile.columns), divided_up(num_rows, tile.rows))
    splits = num_splits(grid[0] * grid[1], depth, tile.depth, num_multiprocessors(x.device))
    split_depth = divided_up(divided_up(depth, splits), tile.depth) * tile.depth
    splits = max(1, divided_up(depth, max(split_depth, 1)))
    dtype = x.dtype if splits == 1 else torch.float32
    out = torch.empty((splits, num_rows, num_columns), dtype=dtype, device=x.device)
    with launching_on(x):
        quantized_linear_kernel[(*grid, splits)](
            x, weight, scales, out, num_rows, num_columns, x.stride(0), depth, split_depth,
            ROWS=tile.rows, COLUMNS=tile.columns, DEPTH=tile.depth,
            WIDE=INTERPRETED or x.dtype is torch.float32,
            num_warps=tile.num_warps, num_stages=tile.num_stages,
        )  # fmt: skip
    return out[0] if splits == 1 else out.sum(0).to(x.dtype)


def num_splits(num_programs: int, depth: int, tile_depth: int, multiprocessors: int) -> int:
    """Into how many parts to cut the sum so that two programs a multiprocessor have work.

    >>> num_splits(64, 4096, 128, 132), num_splits(1187, 4096, 128, 132), num_splits(1, 64, 128, 9)
    (4, 1, 1)
    """
    wanted = 2 * multiprocessors // max(num_programs, 1)
    return max(1, min(wanted, MAX_SPLITS, divided_up(depth, 4 * tile_depth)))


def forms(number: str) -> Iterator[Form]:
    """Compile every tile in int8 and fp8, whole and split; `number` is the activations' type."""
    strides = dict.fromkeys(("x_stride", "weight_stride", "split_stride"), "i32")
    for rows, tile in TILES.items():
        for kind in ("i8", "fp8e4nv"):
            for out in dict.fromkeys((number, "fp32")):
                yield Form(
                    name=f"quantized_linear {kind} rows={rows} out={out}",
                    kernel=quantized_linear_kernel,
                    types={
                        "x_ptr": f"*{number}",
                        "weight_ptr": f"*{kind}",
                        "scales_ptr": "*fp32",
                        "out_ptr": f"*{out}",
                        "num_rows": "i32",
                        "num_columns": "i32",
                        **strides,
                    },
                    constants={
                        "ROWS": rows,
                        "COLUMNS": tile.columns,
                        "DEPTH": tile.depth,
                        "WIDE": number == "fp32",
                    },
                    num_warps=tile.num_warps,
                    num_stages=tile.num_stages,
                )
