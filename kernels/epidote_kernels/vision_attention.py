"""This file is about attention within each picture or window, on a GPU.

A program takes one segment, one head and one tile of queries, and walks the segment's keys.

Sources: FlashAttention-2, Dao, 2023; many pictures in one row of tokens: NaViT, Dehghani et al.,
NeurIPS 2023.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from epidote_kernels.flash_tiles import flash_tiling, flash_tilings, softmax_weights
from epidote_kernels.launching import (
    INDEX_POINTERS,
    INTERPRETED,
    LOG2_E,
    Form,
    divided_up,
    launching_on,
    power_of_two,
)
from epidote_kernels.tilings import Tiling


@triton.jit
def _part(row, live, dims, DIM: tl.constexpr, WIDEN: tl.constexpr):
    """Elements `dims` of rows of heads; zeros past the end of either."""
    part = tl.load(row + dims[None, :], mask=live[:, None] & (dims < DIM)[None, :], other=0.0)
    if WIDEN:
        part = part.to(tl.float32)
    return part


@triton.jit(do_not_specialize=("tiles",), do_not_specialize_on_alignment=INDEX_POINTERS)
def vision_attention_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    bounds_ptr,
    out_ptr,
    scale_log2,
    q_token_stride,
    q_head_stride,
    k_token_stride,
    k_head_stride,
    v_token_stride,
    v_head_stride,
    num_heads,
    tiles,
    DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_TAIL: tl.constexpr,
    HAS_TAIL: tl.constexpr,
    WIDEN: tl.constexpr,
):
    segment = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    head = tl.program_id(1)
    first = tl.load(bounds_ptr + segment)
    length = tl.load(bounds_ptr + segment + 1) - first
    if tile * BLOCK_ROWS >= length:
        return
    rows = tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    dims = tl.arange(0, BLOCK_DIM)
    tail = BLOCK_DIM + tl.arange(0, BLOCK_TAIL)
    token = (first + rows).to(tl.int64)
    q_row = q_ptr + token[:, None] * q_token_stride + head * q_head_stride
    q = _part(q_row, rows < length, dims, DIM, WIDEN)
    q_tail = _part(q_row, rows < length, tail, DIM, WIDEN)

    top = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_ROWS,), tl.float32)
    acc = tl.zeros((BLOCK_ROWS, BLOCK_DIM), tl.float32)
    acc_tail = tl.zeros((BLOCK_ROWS, BLOCK_TAIL), tl.float32)
    for start in range(0, length, BLOCK_KEYS):
        keys = start + tl.arange(0, BLOCK_KEYS)
        live = keys < length
        at = (first + keys).to(tl.int64)
        k_row = k_ptr + at[:, None] * k_token_stride + head * k_head_stride
        v_row = v_ptr + at[:, None] * v_token_stride + head * v_head_stride
        k = _part(k_row, live, dims, DIM, WIDEN)
        v = _part(v_row, live, dims, DIM, WIDEN)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        if HAS_TAIL:
            k_tail = _part(k_row, live, tail, DIM, WIDEN)
            v_tail = _part(v_row, live, tail, DIM, WIDEN)
            scores = tl.dot(q_tail, tl.trans(k_tail), scores, input_precision="ieee")
        scores = tl.where(live[None, :], scores * scale_log2, float("-inf"))
        weights, shrink, top, total = softmax_weights(scores, top, total)
        weights = weights.to(v.dtype)
        acc = acc * shrink[:, None]
        acc = tl.dot(weights, v, acc, input_precision="ieee")
        if HAS_TAIL:
            acc_tail = acc_tail * shrink[:, None]
            acc_tail = tl.dot(weights, v_tail, acc_tail, input_precision="ieee")

    out_row = out_ptr + (token[:, None] * num_heads + head) * DIM
    kind = out_ptr.dtype.element_ty
    acc = acc / total[:, None]  # positive: every query sees at least one key
    mask = (rows < length)[:, None]
    tl.store(out_row + dims[None, :], acc.to(kind), mask=mask & (dims < DIM)[None, :])
    if HAS_TAIL:
        acc_tail = acc_tail / total[:, None]
        tl.store(out_row + tail[None, :], acc_tail.to(kind), mask=mask & (tail < DIM)[None, :])


def dim_parts(dim: int) -> dict[str, int | bool]:
    """Constants for heads of `dim`: matrix instructions take powers of two.

    A vision tower's 72 or 80 would be padded to 128; 64 and 16 in two parts waste little.

    >>> [tuple(dim_parts(dim).values())[1:3] for dim in (40, 64, 72, 80, 96, 112, 128)]
    [(64, 16), (64, 16), (64, 16), (64, 16), (64, 32), (128, 16), (128, 16)]
    """
    block = max(16, power_of_two(dim))
    tail = max(16, power_of_two(dim - block // 2))
    split = block == 128 and tail <= 32
    return {
        "DIM": dim,
        "BLOCK_DIM": 64 if split else block,
        "BLOCK_TAIL": tail if split else 16,
        "HAS_TAIL": split,
    }


def padded_of(parts: dict[str, int | bool]) -> int:
    """What a tile holds of a head's row, both parts together.

    >>> padded_of(dim_parts(72))
    80
    """
    return parts["BLOCK_DIM"] + (parts["BLOCK_TAIL"] if parts["HAS_TAIL"] else 0)


def vision_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    *,
    scale: float,
    max_seqlen: int,
    tiling: Tiling | None = None,
) -> Tensor:
    """The kernel behind `ops.vision_attention`, which checks; twin: `reference`'s.

    tiling   for tests and measurements; by default the device decides
    """
    num_heads, dim = q.shape[1:]
    num_segments = cu_seqlens.shape[0] - 1
    # zeros, since rows of no segment are nobody's to write
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    if not out.numel() or not num_segments or not max_seqlen:
        return out
    parts = dim_parts(dim)
    if tiling is None:
        tiling = flash_tiling("vision_attention", q, max_seqlen, padded_of(parts))
    tiles = divided_up(max_seqlen, tiling.sizes["BLOCK_ROWS"])
    with launching_on(q):
        vision_attention_kernel[(tiles * num_segments, num_heads)](
            q,
            k,
            v,
            cu_seqlens,
            out,
            scale * LOG2_E,
            q.stride(0),
            q.stride(1),
            k.stride(0),
            k.stride(1),
            v.stride(0),
            v.stride(1),
            num_heads,
            tiles,
            **parts,
            WIDEN=INTERPRETED,
            **tiling.sizes,
            num_warps=tiling.num_warps,
            num_stages=tiling.num_stages,
        )
    return out


def forms(number: str) -> Iterator[Form]:
    """Compile for current towers' heads, pictures and windows; `number` is "bf16", …"""
    integers = (
        *("q_token_stride", "q_head_stride", "k_token_stride", "k_head_stride"),
        *("v_token_stride", "v_head_stride", "num_heads", "tiles"),
    )
    types = {
        **dict.fromkeys(("q_ptr", "k_ptr", "v_ptr"), f"*{number}"),
        "bounds_ptr": "*i32",
        "out_ptr": f"*{number}",
        "scale_log2": "fp32",
        **dict.fromkeys(integers, "i32"),
    }
    sizes = ((32, 64), (64, 1024), (72, 1024), (80, 64), (128, 1024))
    for dim, tiling in flash_tilings("vision_attention", number, sizes):
        yield Form(
            name=f"vision_attention dim={dim} rows={tiling.sizes['BLOCK_ROWS']}",
            kernel=vision_attention_kernel,
            types=types,
            constants={**dim_parts(dim), "WIDEN": False, **tiling.sizes},
            num_warps=tiling.num_warps,
            num_stages=tiling.num_stages,
        )
