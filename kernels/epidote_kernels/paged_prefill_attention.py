"""This file is about a chunk of each sequence's queries against its paged KV cache, on a GPU.

A program takes one sequence, one query head and one tile of the chunk. It walks the keys up to its
last query: first the tiles that every query sees whole, then those that the diagonal or the end of
the sequence cuts. Queries inside a picture may see all of it: such a tile walks on to its end.

Sources: FlashAttention-2, Dao, 2023; PagedAttention, Kwon et al., SOSP 2023; chunks: Sarathi-Serve,
Agrawal et al., OSDI 2024.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from epidote_kernels.flash_tiles import flash_tiling, flash_tilings, padded_dim, softmax_step
from epidote_kernels.kv_codes import FP8, INT8, PLAIN, POINTERS, codes_of, query_for
from epidote_kernels.launching import (
    INDEX_POINTERS,
    INTERPRETED,
    LOG2_E,
    Form,
    divided_up,
    launching_on,
)
from epidote_kernels.tilings import Tiling

# sizes of the batch and the table change from step to step: no new compilation for them
VOLATILE = ("tiles", "table_stride", "table_head_stride", "len_stride")


@triton.jit
def _tile_of_cache(
    cache_ptr, block, inside, block_stride, dims, mask, q, CODES: tl.constexpr, WIDEN: tl.constexpr
):
    """Keys or values of one tile, in q's type."""
    at = cache_ptr + (block * block_stride + inside)[:, None] + dims[None, :]
    tile = tl.load(at, mask=mask, other=0.0)
    if CODES or WIDEN:  # codes are whole numbers of q's type too: nothing is rounded
        tile = tile.to(q.dtype)
    return tile


@triton.jit(do_not_specialize=VOLATILE, do_not_specialize_on_alignment=INDEX_POINTERS)
def paged_prefill_kernel(
    q_ptr,
    k_cache_ptr,
    v_cache_ptr,
    k_scale_ptr,
    v_scale_ptr,
    tables_ptr,
    starts_ptr,
    lens_ptr,
    span_ends_ptr,
    out_ptr,
    scale_log2,
    q_token_stride,
    q_head_stride,
    k_block_stride,
    v_block_stride,
    table_stride,
    table_head_stride,
    len_stride,
    len_head_stride,
    num_heads,
    cache_heads,
    head_step,
    tiles,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_SLOTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    SPANS: tl.constexpr,
    CODES: tl.constexpr,
    WIDEN: tl.constexpr,
):
    seq = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tiles - 1 - tl.program_id(0) % tiles  # the longest work first
    head = tl.program_id(1)
    kv_head = head // GROUP
    first = tl.load(starts_ptr + seq)
    chunk = tl.load(starts_ptr + seq + 1) - first
    length = tl.load(lens_ptr + seq * len_stride + kv_head * len_head_stride)
    if (tile * BLOCK_ROWS >= chunk) | (length == 0):
        return
    rows = tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    dims = tl.arange(0, BLOCK_DIM)
    in_dim = (dims < DIM)[None, :]
    q_mask = (rows < chunk)[:, None] & in_dim
    token = (first + rows).to(tl.int64)
    q_at = q_ptr + token[:, None] * q_token_stride + head * q_head_stride + dims[None, :]
    q = query_for(tl.load(q_at, mask=q_mask, other=0.0), CODES, WIDEN)
    out_scale = 1.0
    if CODES:
        scale_log2 *= tl.load(k_scale_ptr + kv_head)
        out_scale = tl.load(v_scale_ptr + kv_head)
    # how many keys each query sees: up to its own, or to the end of its picture
    ends = length - chunk + rows + 1
    last = tl.minimum(length - chunk + (tile + 1) * BLOCK_ROWS, length)
    if SPANS:
        ends = tl.maximum(ends, tl.load(span_ends_ptr + token, mask=rows < chunk, other=0))
        ends = tl.minimum(ends, length)
        last = tl.max(tl.where(rows < chunk, ends, 0), 0)

    top = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_ROWS,), tl.float32)
    acc = tl.zeros((BLOCK_ROWS, BLOCK_DIM), tl.float32)
    table = tables_ptr + seq * table_stride + kv_head * table_head_stride
    # every query of the tile sees keys 0 … its first query's place
    whole = (length - chunk + tile * BLOCK_ROWS + 1) // BLOCK_KEYS * BLOCK_KEYS
    for start in range(0, whole, BLOCK_KEYS):
        keys = start + tl.arange(0, BLOCK_KEYS)
        block = tl.load(table + keys // BLOCK_SLOTS).to(tl.int64)
        inside = ((keys % BLOCK_SLOTS) * cache_heads + kv_head * head_step) * DIM
        k = _tile_of_cache(
            k_cache_ptr, block, inside, k_block_stride, dims, in_dim, q, CODES, WIDEN
        )
        v = _tile_of_cache(
            v_cache_ptr, block, inside, v_block_stride, dims, in_dim, q, CODES, WIDEN
        )
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2
        acc, top, total = softmax_step(scores, v, acc, top, total)
    for start in range(whole, last, BLOCK_KEYS):
        keys = start + tl.arange(0, BLOCK_KEYS)
        live = keys < length
        block = tl.load(table + keys // BLOCK_SLOTS, mask=live, other=0).to(tl.int64)
        inside = ((keys % BLOCK_SLOTS) * cache_heads + kv_head * head_step) * DIM
        mask = live[:, None] & in_dim
        k = _tile_of_cache(k_cache_ptr, block, inside, k_block_stride, dims, mask, q, CODES, WIDEN)
        v = _tile_of_cache(v_cache_ptr, block, inside, v_block_stride, dims, mask, q, CODES, WIDEN)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2
        seen = (keys[None, :] < ends[:, None]) & live[None, :]
        scores = tl.where(seen, scores, float("-inf"))
        acc, top, total = softmax_step(scores, v, acc, top, total)

    acc = acc * (out_scale / tl.where(total > 0, total, 1.0))[:, None]
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
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    span_ends: Tensor | None = None,
    tiling: Tiling | None = None,
) -> Tensor:
    """The kernel behind `ops.paged_prefill_attention`, which checks; twin: `reference`'s.

    tiling   for tests and measurements; by default the device decides
    """
    num_heads, dim = q.shape[1:]
    block_slots, cache_heads = k_cache.shape[1:3]
    by_head = block_tables.dim() == 3
    num_kv_heads = block_tables.shape[1] if by_head else cache_heads
    num_seqs = seq_lens.shape[0]
    # zeros, since rows of no sequence are nobody's to write
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    if not out.numel() or not num_seqs or not max_q_len:
        return out
    if tiling is None:
        tiling = flash_tiling("paged_prefill", q, max_q_len, padded_dim(dim))
    tiles = divided_up(max_q_len, tiling.sizes["BLOCK_ROWS"])
    with launching_on(q):
        paged_prefill_kernel[(tiles * num_seqs, num_heads)](
            q,
            k_cache,
            v_cache,
            q if k_scale is None else k_scale,
            q if v_scale is None else v_scale,
            block_tables,
            cu_q_lens,
            seq_lens,
            cu_q_lens if span_ends is None else span_ends,
            out,
            scale * LOG2_E,
            q.stride(0),
            q.stride(1),
            k_cache.stride(0),
            v_cache.stride(0),
            block_tables.stride(0),
            block_tables.stride(1) if by_head else 0,
            seq_lens.stride(0),
            seq_lens.stride(1) if seq_lens.dim() == 2 else 0,
            num_heads,
            cache_heads,
            int(cache_heads == num_kv_heads),
            tiles,
            GROUP=num_heads // num_kv_heads,
            DIM=dim,
            BLOCK_SLOTS=block_slots,
            BLOCK_DIM=padded_dim(dim),
            SPANS=span_ends is not None,
            CODES=codes_of(k_cache),
            WIDEN=INTERPRETED,
            **tiling.sizes,
            num_warps=tiling.num_warps,
            num_stages=tiling.num_stages,
        )
    return out


def forms(number: str) -> Iterator[Form]:
    """Compile for current models' heads, by the rule and by every table; `number` is "bf16", …"""
    integers = (
        *("q_token_stride", "q_head_stride", "k_block_stride", "v_block_stride"),
        *("table_stride", "table_head_stride", "len_stride", "len_head_stride"),
        *("num_heads", "cache_heads", "head_step", "tiles"),
    )
    types = {
        **dict.fromkeys(("q_ptr", "out_ptr"), f"*{number}"),
        **dict.fromkeys(("k_scale_ptr", "v_scale_ptr"), "*fp32"),
        **dict.fromkeys(("tables_ptr", "starts_ptr", "lens_ptr", "span_ends_ptr"), "*i32"),
        "scale_log2": "fp32",
        **dict.fromkeys(integers, "i32"),
    }
    tilings = flash_tilings("paged_prefill", number, ((64, 512), (128, 512), (128, 16), (256, 512)))
    for dim, tiling in tilings:
        kinds = [(PLAIN, False)]
        if dim == 128 and tiling.sizes["BLOCK_ROWS"] in (16, 128):
            kinds += [(PLAIN, True), (INT8, False), (FP8, True)]
        for codes, spans in kinds:
            cache = POINTERS[codes] or f"*{number}"
            constants = {"GROUP": 4, "DIM": dim, "BLOCK_SLOTS": 16, "BLOCK_DIM": dim}
            constants |= {"SPANS": spans, "CODES": codes, "WIDEN": False}
            yield Form(
                name=f"paged_prefill dim={dim} codes={codes} spans={spans:d} "
                f"rows={tiling.sizes['BLOCK_ROWS']}",
                kernel=paged_prefill_kernel,
                types=types | dict.fromkeys(("k_cache_ptr", "v_cache_ptr"), cache),
                constants={**constants, **tiling.sizes},
                num_warps=tiling.num_warps,
                num_stages=tiling.num_stages,
            )
