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

from epidote_kernels.flash_tiles import flash_tiles, softmax_step
from epidote_kernels.launching import INTERPRETED, LOG2_E, Form, divided_up, launching_on


@triton.jit
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
    q_mask = (rows < length)[:, None] & (dims < DIM)[None, :]
    token = (first + rows).to(tl.int64)
    q_at = q_ptr + token[:, None] * q_token_stride + head * q_head_stride + dims[None, :]
    q = tl.load(q_at, mask=q_mask, other=0.0)
    if WIDEN:
        q = q.to(tl.float32)

    top = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_ROWS,), tl.float32)
    acc = tl.zeros((BLOCK_ROWS, BLOCK_DIM), tl.float32)
    for start in range(0, length, BLOCK_KEYS):
        keys = start + tl.arange(0, BLOCK_KEYS)
        live = keys < length
        at = (first + keys).to(tl.int64)
        kv_mask = live[:, None] & (dims < DIM)[None, :]
        k_at = k_ptr + at[:, None] * k_token_stride + head * k_head_stride + dims[None, :]
        v_at = v_ptr + at[:, None] * v_token_stride + head * v_head_stride + dims[None, :]
        k = tl.load(k_at, mask=kv_mask, other=0.0)
        v = tl.load(v_at, mask=kv_mask, other=0.0)
        if WIDEN:
            k = k.to(tl.float32)
            v = v.to(tl.float32)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2
        scores = tl.where(live[None, :], scores, float("-inf"))
        acc, top, total = softmax_step(scores, v, acc, top, total)

    acc = acc / total[:, None]  # positive: every query sees at least one key
    out_at = out_ptr + (token[:, None] * num_heads + head) * DIM + dims[None, :]
    tl.store(out_at, acc.to(out_ptr.dtype.element_ty), mask=q_mask)


def vision_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, *, scale: float, max_seqlen: int
) -> Tensor:
    """The kernel behind `ops.vision_attention`, which checks; twin: `reference`'s."""
    num_heads, dim = q.shape[1:]
    num_segments = cu_seqlens.shape[0] - 1
    # zeros, since rows of no segment are nobody's to write
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    if not out.numel() or not num_segments or not max_seqlen:
        return out
    constants, warps, stages = flash_tiles(dim, q.element_size(), max_seqlen)
    tiles = divided_up(max_seqlen, constants["BLOCK_ROWS"])
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
            WIDEN=INTERPRETED,
            **constants,
            num_warps=warps,
            num_stages=stages,
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
    for dim, max_rows in ((32, 64), (64, 1024), (72, 1024), (80, 64), (128, 1024)):
        constants, warps, stages = flash_tiles(dim, 4 if number == "fp32" else 2, max_rows)
        yield Form(
            name=f"vision_attention dim={dim} rows={max_rows}",
            kernel=vision_attention_kernel,
            types=types,
            constants={**constants, "WIDEN": False},
            num_warps=warps,
            num_stages=stages,
        )
