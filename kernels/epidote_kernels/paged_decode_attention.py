"""This file is about one query token per sequence against its paged KV cache, on a GPU.

A program takes one sequence, one KV head with all query heads that share it, and one split of the
sequence. Splits keep a GPU busy when few sequences are long; a second kernel merges them by their
log-sum-exp.

Sources: PagedAttention, Kwon et al., SOSP 2023; online softmax: FlashAttention-2, Dao, 2023;
splits: Flash-Decoding, Dao et al., 2023; shared KV heads: GQA, Ainslie et al., EMNLP 2023.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from epidote_kernels.launching import (
    INTERPRETED,
    LOG2_E,
    Form,
    divided_up,
    launching_on,
    num_multiprocessors,
    power_of_two,
)

MIN_SPLIT = 256  # tokens below which another split costs more than it saves; not tuned yet
MAX_SPLITS = 64
WAVES = 2  # programs wanted per multiprocessor; not tuned yet


@triton.jit
def paged_decode_kernel(
    q_ptr,
    k_cache_ptr,
    v_cache_ptr,
    tables_ptr,
    lens_ptr,
    out_ptr,
    lse_ptr,
    scale_log2,
    q_seq_stride,
    q_head_stride,
    k_block_stride,
    v_block_stride,
    table_stride,
    num_kv_heads,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_SLOTS: tl.constexpr,
    SPLITS: tl.constexpr,
    MIN_TOKENS: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    WIDEN: tl.constexpr,
):
    seq = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    length = tl.load(lens_ptr + seq)
    # the merge kernel cuts a sequence in the same way
    share = tl.maximum(tl.cdiv(length, SPLITS), MIN_TOKENS)
    share = tl.cdiv(share, BLOCK_TOKENS) * BLOCK_TOKENS
    first = split * share
    last = tl.minimum(first + share, length)
    if (SPLITS > 1) & (first >= length):
        return

    within = tl.arange(0, BLOCK_HEADS)
    heads = kv_head * GROUP + within
    dims = tl.arange(0, BLOCK_DIM)
    q_mask = (within < GROUP)[:, None] & (dims < DIM)[None, :]
    q_at = q_ptr + seq * q_seq_stride + heads[:, None] * q_head_stride + dims[None, :]
    q = tl.load(q_at, mask=q_mask, other=0.0)
    if WIDEN:
        q = q.to(tl.float32)

    top = tl.full((BLOCK_HEADS,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_HEADS,), tl.float32)
    acc = tl.zeros((BLOCK_HEADS, BLOCK_DIM), tl.float32)
    for start in range(first, last, BLOCK_TOKENS):
        tokens = start + tl.arange(0, BLOCK_TOKENS)
        live = tokens < last
        block = tl.load(tables_ptr + seq * table_stride + tokens // BLOCK_SLOTS, mask=live, other=0)
        row = (tokens % BLOCK_SLOTS) * num_kv_heads + kv_head
        k_row = block.to(tl.int64) * k_block_stride + row * DIM
        v_row = block.to(tl.int64) * v_block_stride + row * DIM
        kv_mask = live[:, None] & (dims < DIM)[None, :]
        k = tl.load(k_cache_ptr + k_row[:, None] + dims[None, :], mask=kv_mask, other=0.0)
        v = tl.load(v_cache_ptr + v_row[:, None] + dims[None, :], mask=kv_mask, other=0.0)
        if WIDEN:
            k = k.to(tl.float32)
            v = v.to(tl.float32)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2
        scores = tl.where(live[None, :], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))  # finite: every tile has a live token
        shrink = tl.exp2(top - new_top)
        weights = tl.exp2(scores - new_top[:, None])
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None]
        acc += tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        top = new_top

    acc = acc / tl.where(total > 0, total, 1.0)[:, None]  # an empty sequence: zeros
    there = seq * num_kv_heads * GROUP + heads
    if SPLITS > 1:
        there = there * SPLITS + split
        tl.store(lse_ptr + there, top + tl.log2(total), mask=within < GROUP)
    out_at = out_ptr + there[:, None] * DIM + dims[None, :]
    tl.store(out_at, acc.to(out_ptr.dtype.element_ty), mask=q_mask)


@triton.jit
def merge_splits_kernel(
    parts_ptr,
    lse_ptr,
    lens_ptr,
    out_ptr,
    num_heads,
    DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    MIN_TOKENS: tl.constexpr,
    BLOCK_SPLITS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
):
    seq = tl.program_id(0).to(tl.int64)
    row = seq * num_heads + tl.program_id(1)
    length = tl.load(lens_ptr + seq)
    share = tl.maximum(tl.cdiv(length, SPLITS), MIN_TOKENS)
    share = tl.cdiv(share, BLOCK_TOKENS) * BLOCK_TOKENS
    splits = tl.arange(0, BLOCK_SPLITS)
    live = (splits < SPLITS) & (splits * share < length)
    dims = tl.arange(0, BLOCK_DIM)
    lse = tl.load(lse_ptr + row * SPLITS + splits, mask=live, other=float("-inf"))
    top = tl.max(lse, 0)
    weights = tl.exp2(lse - tl.where(length > 0, top, 0.0))
    parts = tl.load(
        parts_ptr + (row * SPLITS + splits)[:, None] * DIM + dims[None, :],
        mask=live[:, None] & (dims < DIM)[None, :],
        other=0.0,
    )
    total = tl.sum(weights, 0)
    merged = tl.sum(parts * weights[:, None], 0) / tl.where(length > 0, total, 1.0)
    tl.store(out_ptr + row * DIM + dims, merged.to(out_ptr.dtype.element_ty), mask=dims < DIM)


def _num_splits(num_programs: int, max_tokens: int, multiprocessors: int) -> int:
    """Splits per sequence: enough programs to fill the device, as sizes alone can tell.

    Lengths are on the device and stay there: a short sequence leaves its later splits empty.
    """
    wanted = divided_up(WAVES * multiprocessors, num_programs)
    return max(1, min(wanted, divided_up(max_tokens, MIN_SPLIT), MAX_SPLITS))


def _tiles(dim: int, group: int, itemsize: int) -> dict[str, int]:
    block_dim = max(16, power_of_two(dim))  # tl.dot takes no less than 16
    wide = block_dim * itemsize
    return {
        "GROUP": group,
        "DIM": dim,
        "BLOCK_HEADS": max(16, power_of_two(group)),
        "BLOCK_DIM": block_dim,
        "BLOCK_TOKENS": 64 if wide <= 256 else 32 if wide <= 512 else 16,
    }


def paged_decode_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    seq_lens: Tensor,
    *,
    scale: float,
    num_splits: int | None = None,
    min_split: int = MIN_SPLIT,
) -> Tensor:
    """The kernel behind `ops.paged_decode_attention`, which checks; twin: `reference`'s.

    num_splits, min_split   for tests and benches; by default sizes decide
    """
    num_seqs, num_heads, dim = q.shape
    block_slots, num_kv_heads = k_cache.shape[1:3]
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    if not out.numel():
        return out
    if num_splits is None:
        max_tokens = block_tables.shape[1] * block_slots
        programs = num_seqs * num_kv_heads
        num_splits = _num_splits(programs, max_tokens, num_multiprocessors(q.device))
    parts, lse = out, out
    if num_splits > 1:
        shape = (num_seqs, num_heads, num_splits)
        parts = torch.empty((*shape, dim), dtype=torch.float32, device=q.device)
        lse = torch.empty(shape, dtype=torch.float32, device=q.device)
    tiles = _tiles(dim, num_heads // num_kv_heads, q.element_size())
    cut = {"SPLITS": num_splits, "MIN_TOKENS": min_split}
    with launching_on(q):
        paged_decode_kernel[(num_seqs, num_kv_heads, num_splits)](
            q,
            k_cache,
            v_cache,
            block_tables,
            seq_lens,
            parts,
            lse,
            scale * LOG2_E,
            q.stride(0),
            q.stride(1),
            k_cache.stride(0),
            v_cache.stride(0),
            block_tables.stride(0),
            num_kv_heads,
            BLOCK_SLOTS=block_slots,
            WIDEN=INTERPRETED,
            **tiles,
            **cut,
            num_warps=4,
            num_stages=2,
        )
        if num_splits > 1:
            merge_splits_kernel[(num_seqs, num_heads)](
                parts,
                lse,
                seq_lens,
                out,
                num_heads,
                DIM=dim,
                BLOCK_SPLITS=power_of_two(num_splits),
                BLOCK_DIM=tiles["BLOCK_DIM"],
                BLOCK_TOKENS=tiles["BLOCK_TOKENS"],
                **cut,
                num_warps=4,
            )
    return out


def forms(number: str) -> Iterator[Form]:
    """Compile for current models' heads, with and without splits; `number` is "bf16", …"""
    pointers = ("q_ptr", "k_cache_ptr", "v_cache_ptr")
    strides = ("q_seq_stride", "q_head_stride", "k_block_stride", "v_block_stride")
    itemsize = 4 if number == "fp32" else 2
    for dim, group, splits in ((64, 3, 1), (80, 1, 8), (128, 7, 16), (128, 1, 1), (256, 4, 4)):
        tiles = _tiles(dim, group, itemsize)
        cut = {"SPLITS": splits, "MIN_TOKENS": MIN_SPLIT}
        part = number if splits == 1 else "fp32"
        yield Form(
            name=f"paged_decode dim={dim} group={group} splits={splits}",
            kernel=paged_decode_kernel,
            types={
                **dict.fromkeys(pointers, f"*{number}"),
                **dict.fromkeys(("tables_ptr", "lens_ptr"), "*i32"),
                **dict.fromkeys(("out_ptr", "lse_ptr"), f"*{part}"),
                "scale_log2": "fp32",
                **dict.fromkeys((*strides, "table_stride", "num_kv_heads"), "i32"),
            },
            constants={**tiles, **cut, "BLOCK_SLOTS": 16, "WIDEN": False},
            num_warps=4,
            num_stages=2,
        )
        if splits > 1:
            yield Form(
                name=f"merge_splits dim={dim} splits={splits}",
                kernel=merge_splits_kernel,
                types={
                    **dict.fromkeys(("parts_ptr", "lse_ptr"), "*fp32"),
                    "lens_ptr": "*i32",
                    "out_ptr": f"*{number}",
                    "num_heads": "i32",
                },
                constants={
                    **cut,
                    "DIM": dim,
                    "BLOCK_SPLITS": power_of_two(splits),
                    "BLOCK_DIM": tiles["BLOCK_DIM"],
                    "BLOCK_TOKENS": tiles["BLOCK_TOKENS"],
                },
                num_warps=4,
                num_stages=3,
            )
