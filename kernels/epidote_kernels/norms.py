"""This file is about RMS normalisation on a GPU, with or without the residual sum before it.

Source: Root Mean Square Layer Normalization, Zhang and Sennrich, NeurIPS 2019.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from epidote_kernels.launching import Form, divided_up, launching_on, power_of_two

TILE = 2048  # elements a program holds at once where rows are short; not tuned yet


@triton.jit(do_not_specialize=("num_rows",))  # it changes from step to step
def rms_norm_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    out_ptr,
    total_ptr,
    num_rows,
    rows_per_group,
    group_stride,
    row_stride,
    eps,
    SIZE: tl.constexpr,
    ADD: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.arange(0, BLOCK_SIZE)
    mask = (rows < num_rows)[:, None] & (columns < SIZE)[None, :]
    # x may be heads inside a wider projection: rows come in groups (tokens) with their own stride
    starts = (rows // rows_per_group) * group_stride + (rows % rows_per_group) * row_stride
    there = rows[:, None] * SIZE + columns[None, :]
    x = tl.load(x_ptr + starts[:, None] + columns[None, :], mask=mask, other=0.0)
    wide = x.to(tl.float32)
    if ADD:
        residual = tl.load(residual_ptr + there, mask=mask, other=0.0)
        total = (wide + residual.to(tl.float32)).to(x.dtype)
        tl.store(total_ptr + there, total, mask=mask)
        wide = total.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, axis=1) / SIZE + eps)
    weight = tl.load(weight_ptr + columns, mask=columns < SIZE, other=0.0).to(tl.float32)
    # rounded before the weight, as the twin and Llama's own definition do
    normed = (wide * scale[:, None]).to(x.dtype).to(tl.float32)
    tl.store(out_ptr + there, (normed * weight[None, :]).to(x.dtype), mask=mask)


def _tiles(size: int) -> tuple[dict[str, int], int]:
    block = power_of_two(size)
    rows = max(1, TILE // block)
    warps = 4 if block <= 2048 else 8 if block <= 8192 else 16
    return {"SIZE": size, "BLOCK_ROWS": rows, "BLOCK_SIZE": block}, warps


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The kernel behind `ops.rms_norm`, which checks; twin: `reference.rms_norm`."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if not x.numel():
        return out
    rows = x if x.dim() == 3 else x.reshape(-1, 1, x.shape[-1])
    _launch(rows, rows, weight, out, out, eps, add=False)
    return out


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The kernel behind `ops.add_rms_norm`, which checks; twin: `reference.add_rms_norm`."""
    out, total = torch.empty_like(x), torch.empty_like(x)
    if x.numel():
        _launch(x.view(-1, 1, x.shape[-1]), residual, weight, out, total, eps, add=True)
    return out, total


def _launch(
    rows: Tensor,
    residual: Tensor,
    weight: Tensor,
    out: Tensor,
    total: Tensor,
    eps: float,
    *,
    add: bool,
) -> None:
    groups, rows_per_group, size = rows.shape
    constants, warps = _tiles(size)
    num_rows = groups * rows_per_group
    with launching_on(rows):
        rms_norm_kernel[(divided_up(num_rows, constants["BLOCK_ROWS"]),)](
            rows,
            residual,
            weight,
            out,
            total,
            num_rows,
            rows_per_group,
            rows.stride(0),
            rows.stride(1),
            eps,
            ADD=add,
            **constants,
            num_warps=warps,
        )


def forms(number: str) -> Iterator[Form]:
    """Compile for hidden sizes and head dimensions of current models; `number` is "bf16", …"""
    pointers = ("x_ptr", "residual_ptr", "weight_ptr", "out_ptr", "total_ptr")
    integers = ("num_rows", "rows_per_group", "group_stride", "row_stride")
    types = {
        **dict.fromkeys(pointers, f"*{number}"),
        **dict.fromkeys(integers, "i32"),
        "eps": "fp32",
    }
    for size, add in ((128, False), (576, True), (8192, True)):
        constants, warps = _tiles(size)
        yield Form(
            name=f"{'add_' if add else ''}rms_norm size={size}",
            kernel=rms_norm_kernel,
            types=types,
            constants={**constants, "ADD": add},
            num_warps=warps,
            num_stages=3,
        )
