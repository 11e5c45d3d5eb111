"""This file is about sharing ragged work evenly among the programs of one launch, on the device.

A unit is one KV head of one sequence, and its work is tiles of its cache. All tiles of all units
stand in one line; a program takes the next equal stretch of it, which may begin and end inside a
unit. Lengths stay on the device, so the launch has the same size every step and fits a CUDA graph,
and no ragged batch leaves a multiprocessor idle.

Source: Stream-K, Osama et al., PPoPP 2023 (equal stretches of the iterations of all tiles).
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

import triton
import triton.language as tl


@triton.jit
def tiles_of_units(
    lens_ptr,
    chunk,
    num_units,
    num_kv_heads,
    len_stride,
    len_head_stride,
    BLOCK_UNITS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
):
    """Tiles of units chunk … chunk + BLOCK_UNITS - 1; none where there is no unit."""
    units = chunk + tl.arange(0, BLOCK_UNITS)
    at = (units // num_kv_heads) * len_stride + (units % num_kv_heads) * len_head_stride
    lengths = tl.load(lens_ptr + at, mask=units < num_units, other=0)
    return tl.cdiv(lengths, BLOCK_TOKENS)


@triton.jit
def stretch_of_program(
    lens_ptr,
    num_units,
    num_kv_heads,
    len_stride,
    len_head_stride,
    min_tiles,
    BLOCK_UNITS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
):
    """(first tile, end, unit of the first tile, tile where that unit begins) of this program."""
    total = 0
    for chunk in range(0, num_units, BLOCK_UNITS):
        tiles = tiles_of_units(
            lens_ptr, chunk, num_units, num_kv_heads, len_stride, len_head_stride,
            BLOCK_UNITS, BLOCK_TOKENS,
        )  # fmt: skip
        total += tl.sum(tiles, 0)
    share = tl.maximum(tl.cdiv(total, tl.num_programs(0)), min_tiles)
    first = tl.program_id(0) * share
    last = tl.minimum(first + share, total)
    unit = 0
    begin = 0
    if first < total:
        before = 0
        for chunk in range(0, num_units, BLOCK_UNITS):
            tiles = tiles_of_units(
                lens_ptr, chunk, num_units, num_kv_heads, len_stride, len_head_stride,
                BLOCK_UNITS, BLOCK_TOKENS,
            )  # fmt: skip
            ends = before + tl.cumsum(tiles, 0)
            exists = chunk + tl.arange(0, BLOCK_UNITS) < num_units
            done = (ends <= first) & exists
            unit += tl.sum(done.to(tl.int32), 0)
            begin = tl.maximum(begin, tl.max(tl.where(done, ends, 0), 0))
            before += tl.sum(tiles, 0)
    return first, last, unit, begin
