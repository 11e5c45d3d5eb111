"""This file is about a chunk of each sequence's queries against its paged KV cache, on a GPU.

A program takes one sequence, one query head and one tile of the chunk. It walks the keys up to its
last query: first the tiles that every query sees whole, then those that the diagonal or the end of
the sequence cuts.

Sources: FlashAttention-2, Dao, 2023; PagedAttention, Kwon et al., SOSP 2023; chunks: Sarathi-Serve,
Agrawal et al., OSDI 2024.
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
def paged_prefill_kernel(
    q_ptr,
    k_cache_ptr,
    v_cache_ptr,
    tables_ptr,
    starts_ptr,
    lens_ptr,
    out_ptr,
    scale_log2,
    q_token_stride,
    q_head_stride,
    k_block_stride,
    v_block_stride,
    table_stride,
    num_heads,
    num_kv_heads,
    tiles,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_SLOTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    WIDEN: tl.constexpr,
):
    seq = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tiles - 1 - tl.program_id(0) % tiles  # the longest work first
    head = tl.program_id(1)
    kv_head = head // GROUP
    first = tl.load(starts_ptr + seq)
    chunk = tl.load(starts_ptr + seq + 1) - first
    length = tl.load(lens_ptr + seq)
    if (tile * BLOCK_ROWS >= chunk) | (length == 0):
        return
    rows = tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    places = length - chunk + rows  # of the queries in their sequence
    dims = tl.arange(0, BLOCK_DIM)
    q_mask = (rows < chunk)[:, None] & (dims < DIM)[None, :]
    token = (first + rows).to(tl.int64)
    q_at = q_ptr + token[:, None] * q_token_stride + head * q_head_stride + dims[None, :]
    q = tl.load(q_at, mask=q_mask, other=0.0)
    if WIDEN:
        q = q.to(tl.float32)

    top = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_ROWS,), tl.float32)
    acc = tl.zeros((BLOCK_ROWS, BLOCK_DIM), tl.float32)
    table = tables_ptr + seq * table_stride
    # every query of the tile sees keys 0 … its first query's place
    whole = (length - chunk + tile * BLOCK_ROWS + 1) // BLOCK_KEYS * BLOCK_KEYS
    last = tl.minimum(length - chunk + (tile + 1) * BLOCK_ROWS, length)
    for start in range(0, whole, BLOCK_KEYS):
        keys = start + tl.arange(0, BLOCK_KEYS)
        block = tl.load(table + keys // BLOCK_SLOTS).to(tl.int64)
        row = (keys % BLOCK_SLOTS) * num_kv_heads + kv_head
        k_at = k_cache_ptr + (block * k_block_stride + row * DIM)[:, None] + dims[None, :]
        v_at = v_cache_ptr + (block * v_block_stride + row * DIM)[:, None] + dims[None, :]
        k = tl.load(k_at, mask=(dims < DIM)[None, :], other=0.0)
        v = tl.load(v_at, mask=(dims < DIM)[None, :], other=0.0)
        if WIDEN:
            k = k.to(tl.float32)
            v = v.to(tl.float32)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2
        acc, top, total = softmax_step(scores, v, acc, top, total)
    for start in range(whole, last, BLOCK_KEYS):
        keys = start + tl.arange(0, BLOCK_KEYS)
        live = keys < length
        block = tl.load(table + keys // BLOCK_SLOTS, mask=live, other=0).to(tl.int64)
        row = (keys % BLOCK_SLOTS) * num_kv_heads + kv_head
        kv_mask = live[:, None] & (dims < DIM)[None, :]
        k_at = k_cache_ptr + (block * k_block_stride + row * DIM)[:, None] + dims[None, :]
        v_at = v_cache_ptr + (block * v_block_stride + row * DIM)[:, None] + dims[None, :]
        k = tl.load(k_at, mask=kv_mask, other=0.0)
        v = tl.load(v_at, mask=kv_mask, other=0.0)
        if WIDEN:
            k = k.to(tl.float32)
            v = v.to(tl.float32)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2
        seen = (keys[None, :] <= places[:, None]) & live[None, :]
        scores = tl.where(seen, scores, float("-inf"))
        acc, top, total = softmax_step(scores, v, acc, top, total)

    acc = acc / tl.where(total > 0, total, 1.0)[:, None]
    out_at = out_ptr + (token[:, None] * num_heads + head) * DIM + dims[None, :]
    tl.store(out_at, acc.to(out_ptr.dtype.element_ty), mask=q_mask)


def paged_prefill_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    cu_q_lens: Tensor,
    seq_lens: Tensor,
    *,
    scale: float,
    max_q_len: int,
) -> Tensor:
    """The kernel behind `ops.paged_prefill_attention`, which checks; twin: `reference`'s."""
    num_heads, dim = q.shape[1:]
    block_slots, num_kv_heads = k_cache.shape[1:3]
    num_seqs = seq_lens.shape[0]
    # zeros, since rows of no sequence are nobody's to write
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    if not out.numel() or not num_seqs or not max_q_len:
        return out
    constants, warps, stages = flash_tiles(dim, q.element_size(), max_q_len)
    tiles = divided_up(max_q_len, constants["BLOCK_ROWS"])
    with launching_on(q):
        paged_prefill_kernel[(tiles * num_seqs, num_heads)](
            q,
            k_cache,
            v_cache,
            block_tables,
            cu_q_lens,
            seq_lens,
            out,
            scale * LOG2_E,
            q.stride(0),
            q.stride(1),
            k_cache.stride(0),
            v_cache.stride(0),
            block_tables.stride(0),
            num_heads,
            num_kv_heads,
            tiles,
            GROUP=num_heads // num_kv_heads,
            BLOCK_SLOTS=block_slots,
            WIDEN=INTERPRETED,
            **constants,
            num_warps=warps,
            num_stages=stages,
        )
    return out


def forms(number: str) -> Iterator[Form]:
    """Compile for current models' heads, long chunks and short; `number` is "bf16", …"""
    pointers = ("q_ptr", "k_cache_ptr", "v_cache_ptr", "out_ptr")
    integers = (
        *("q_token_stride", "q_head_stride", "k_block_stride", "v_block_stride", "table_stride"),
        *("num_heads", "num_kv_heads", "tiles"),
    )
    types = {
        **dict.fromkeys(pointers[:3], f"*{number}"),
        **dict.fromkeys(("tables_ptr", "starts_ptr", "lens_ptr"), "*i32"),
        "out_ptr": f"*{number}",
        "scale_log2": "fp32",
        **dict.fromkeys(integers, "i32"),
    }
    for dim, group, max_rows in ((64, 3, 512), (128, 7, 512), (128, 7, 16), (256, 4, 512)):
        constants, warps, stages = flash_tiles(dim, 4 if number == "fp32" else 2, max_rows)
        yield Form(
            name=f"paged_prefill dim={dim} rows={max_rows}",
            kernel=paged_prefill_kernel,
            types=types,
            constants={**constants, "GROUP": group, "BLOCK_SLOTS": 16, "WIDEN": False},
            num_warps=warps,
            num_stages=stages,
        )
