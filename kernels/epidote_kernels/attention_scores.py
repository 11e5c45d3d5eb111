"""This file is about how much each cached key is attended to, for policies that drop keys.

Fused attention keeps no probabilities, so they are computed once more, for the queries that a
policy asks about: a window at the end of the prompt, or all of it, or one step's. First every
query's log-sum-exp, over splits of the keys; then the column sums, a program per tile of keys,
which therefore need no atomics and come out the same every time.

Sources: SnapKV, Li et al., NeurIPS 2024 (window, pooling); H2O, Zhang et al., NeurIPS 2023
(accumulated sums).
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from epidote_kernels.kv_codes import FP8, INT8, PLAIN, POINTERS, codes_of
from epidote_kernels.launching import (
    INDEX_POINTERS,
    INTERPRETED,
    LOG2_E,
    Form,
    divided_up,
    launching_on,
    num_multiprocessors,
    power_of_two,
)

MAX_SPLITS = 16
WAVES = 2  # programs wanted per multiprocessor; not measured yet
POOLED = 1024  # columns of a pooling program
VOLATILE = ("row_tiles", "key_tiles", "num_splits", "table_stride", "len_stride", "out_stride")


@triton.jit
def _keys_of_tile(
    cache_ptr, table, keys, live, block_stride, cache_heads, kv_step, dims, kind,
    DIM: tl.constexpr, BLOCK_SLOTS: tl.constexpr, CODES: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """One tile of keys, gathered from their blocks; codes become numbers of `kind`."""
    block = tl.load(table + keys // BLOCK_SLOTS, mask=live, other=0).to(tl.int64)
    inside = ((keys % BLOCK_SLOTS) * cache_heads + kv_step) * DIM
    at = cache_ptr + (block * block_stride + inside)[:, None] + dims[None, :]
    k = tl.load(at, mask=live[:, None] & (dims < DIM)[None, :], other=0.0)
    if WIDEN:
        k = k.to(tl.float32)
    elif CODES:
        k = k.to(kind)
    return k


@triton.jit(do_not_specialize=VOLATILE, do_not_specialize_on_alignment=INDEX_POINTERS)
def query_lse_kernel(
    q_ptr,
    k_cache_ptr,
    k_scale_ptr,
    tables_ptr,
    starts_ptr,
    lens_ptr,
    lse_ptr,
    scale_log2,
    q_token_stride,
    q_head_stride,
    k_block_stride,
    table_stride,
    table_head_stride,
    len_stride,
    len_head_stride,
    num_heads,
    cache_heads,
    head_step,
    row_tiles,
    num_splits,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_SLOTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    CODES: tl.constexpr,
    WIDEN: tl.constexpr,
):
    seq = (tl.program_id(0) // row_tiles).to(tl.int64)
    tile = tl.program_id(0) % row_tiles
    head = tl.program_id(1)
    split = tl.program_id(2)
    kv_head = head // GROUP
    first = tl.load(starts_ptr + seq)
    chunk = tl.load(starts_ptr + seq + 1) - first
    length = tl.load(lens_ptr + seq * len_stride + kv_head * len_head_stride)
    if (tile * BLOCK_ROWS >= chunk) | (length == 0):
        return
    rows = tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    places = length - chunk + rows
    dims = tl.arange(0, BLOCK_DIM)
    token = (first + rows).to(tl.int64)
    q_at = q_ptr + token[:, None] * q_token_stride + head * q_head_stride + dims[None, :]
    q = tl.load(q_at, mask=(rows < chunk)[:, None] & (dims < DIM)[None, :], other=0.0)
    if WIDEN:
        q = q.to(tl.float32)
    if CODES:
        scale_log2 *= tl.load(k_scale_ptr + kv_head)
    table = tables_ptr + seq * table_stride + kv_head * table_head_stride
    share = tl.cdiv(tl.cdiv(length, num_splits), BLOCK_KEYS) * BLOCK_KEYS
    last = tl.minimum((split + 1) * share, length)
    last = tl.minimum(last, length - chunk + (tile + 1) * BLOCK_ROWS)
    top = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_ROWS,), tl.float32)
    for start in range(split * share, last, BLOCK_KEYS):
        keys = start + tl.arange(0, BLOCK_KEYS)
        live = keys < last
        k = _keys_of_tile(
            k_cache_ptr, table, keys, live, k_block_stride, cache_heads, kv_head * head_step,
            dims, q_ptr.dtype.element_ty, DIM, BLOCK_SLOTS, CODES, WIDEN,
        )  # fmt: skip
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2
        seen = (keys[None, :] <= places[:, None]) & live[None, :]
        scores = tl.where(seen, scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        pivot = tl.where(new_top == float("-inf"), 0.0, new_top)  # -inf minus itself: NaN
        total = total * tl.exp2(top - pivot) + tl.sum(tl.exp2(scores - pivot[:, None]), 1)
        top = new_top
    lse = tl.where(total > 0, top + tl.log2(tl.where(total > 0, total, 1.0)), float("-inf"))
    tl.store(lse_ptr + (token * num_heads + head) * num_splits + split, lse, mask=rows < chunk)


@triton.jit(do_not_specialize=VOLATILE, do_not_specialize_on_alignment=INDEX_POINTERS)
def column_sums_kernel(
    q_ptr,
    k_cache_ptr,
    k_scale_ptr,
    tables_ptr,
    starts_ptr,
    lens_ptr,
    lse_ptr,
    out_ptr,
    scale_log2,
    q_token_stride,
    q_head_stride,
    k_block_stride,
    table_stride,
    table_head_stride,
    len_stride,
    len_head_stride,
    out_stride,
    out_head_stride,
    num_heads,
    cache_heads,
    head_step,
    key_tiles,
    num_splits,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_SLOTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_SPLITS: tl.constexpr,
    CODES: tl.constexpr,
    WIDEN: tl.constexpr,
):
    seq = (tl.program_id(0) // key_tiles).to(tl.int64)
    tile = tl.program_id(0) % key_tiles
    kv_head = tl.program_id(1)
    first = tl.load(starts_ptr + seq)
    chunk = tl.load(starts_ptr + seq + 1) - first
    length = tl.load(lens_ptr + seq * len_stride + kv_head * len_head_stride)
    if (tile * BLOCK_KEYS >= length) | (chunk == 0):
        return
    keys = tile * BLOCK_KEYS + tl.arange(0, BLOCK_KEYS)
    live = keys < length
    dims = tl.arange(0, BLOCK_DIM)
    splits = tl.arange(0, BLOCK_SPLITS)
    if CODES:
        scale_log2 *= tl.load(k_scale_ptr + kv_head)
    k = _keys_of_tile(
        k_cache_ptr, tables_ptr + seq * table_stride + kv_head * table_head_stride, keys, live,
        k_block_stride, cache_heads, kv_head * head_step, dims, q_ptr.dtype.element_ty,
        DIM, BLOCK_SLOTS, CODES, WIDEN,
    )  # fmt: skip
    sums = tl.zeros((BLOCK_KEYS,), tl.float32)
    # queries before the tile's first key see none of it
    skipped = tl.maximum(tile * BLOCK_KEYS - (length - chunk), 0) // BLOCK_ROWS * BLOCK_ROWS
    for start in range(skipped, chunk, BLOCK_ROWS):
        rows = start + tl.arange(0, BLOCK_ROWS)
        places = length - chunk + rows
        seen = (keys[None, :] <= places[:, None]) & live[None, :] & (rows < chunk)[:, None]
        token = (first + rows).to(tl.int64)
        for member in range(0, GROUP):
            head = kv_head * GROUP + member
            q_at = q_ptr + token[:, None] * q_token_stride + head * q_head_stride + dims[None, :]
            q = tl.load(q_at, mask=(rows < chunk)[:, None] & (dims < DIM)[None, :], other=0.0)
            if WIDEN:
                q = q.to(tl.float32)
            lse_at = lse_ptr + (token * num_heads + head)[:, None] * num_splits + splits[None, :]
            parts = tl.load(
                lse_at,
                mask=(rows < chunk)[:, None] & (splits < num_splits)[None, :],
                other=float("-inf"),
            )
            top = tl.max(parts, 1)
            pivot = tl.where(top == float("-inf"), 0.0, top)
            total = tl.sum(tl.exp2(parts - pivot[:, None]), 1)
            lse = pivot + tl.log2(tl.where(total > 0, total, 1.0))
            scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2
            shares = tl.exp2(tl.where(seen, scores - lse[:, None], float("-inf")))
            sums += tl.sum(shares, 0)
    at = out_ptr + seq * out_stride + kv_head * out_head_stride + keys
    tl.store(at, tl.load(at, mask=live, other=0.0) + sums / GROUP, mask=live)


@triton.jit(do_not_specialize=("size", "len_stride"), do_not_specialize_on_alignment=INDEX_POINTERS)
def pool_scores_kernel(
    scores_ptr,
    lens_ptr,
    out_ptr,
    size,
    num_kv_heads,
    len_stride,
    len_head_stride,
    WIDTH: tl.constexpr,
    LARGEST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = row % num_kv_heads
    length = tl.load(lens_ptr + (row // num_kv_heads) * len_stride + head * len_head_stride)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    pooled = tl.zeros((BLOCK,), tl.float32)  # shares are never negative: 0 is no largest one
    for step in tl.static_range(WIDTH):
        near = columns + (step - WIDTH // 2)
        mask = (near >= 0) & (near < length) & (near < size)
        score = tl.load(scores_ptr + row * size + near, mask=mask, other=0.0)
        if LARGEST:
            pooled = tl.maximum(pooled, score)
        else:
            pooled += score / WIDTH
    pooled = tl.where(columns < length, pooled, 0.0)
    tl.store(out_ptr + row * size + columns, pooled, mask=columns < size)


def tiles_of(dim: int, itemsize: int, max_rows: int) -> dict[str, int]:
    """Tile sizes: 64 rows are one of Hopper's matrix instructions."""
    block_dim = max(16, power_of_two(dim))
    rows = min(64 if itemsize == 2 else 32, max(16, power_of_two(max_rows)))
    return {
        "DIM": dim,
        "BLOCK_ROWS": rows,
        "BLOCK_KEYS": 64 if itemsize == 2 and block_dim <= 128 else 32,
        "BLOCK_DIM": block_dim,
    }


def attention_column_sums(
    q: Tensor,
    k_cache: Tensor,
    block_tables: Tensor,
    cu_q_lens: Tensor,
    seq_lens: Tensor,
    out: Tensor,
    *,
    scale: float,
    max_q_len: int,
    k_scale: Tensor | None = None,
    num_splits: int | None = None,
) -> None:
    """The kernels behind `ops.attention_column_sums`, which checks; twin: `reference`'s.

    num_splits   for tests; by default sizes decide
    """
    num_tokens, num_heads, dim = q.shape
    block_slots, cache_heads = k_cache.shape[1:3]
    num_seqs, num_kv_heads, max_seq_len = out.shape
    if not q.numel() or not out.numel() or not max_q_len:
        return
    tiles = tiles_of(dim, q.element_size(), max_q_len)
    row_tiles = divided_up(max_q_len, tiles["BLOCK_ROWS"])
    key_tiles = divided_up(max_seq_len, tiles["BLOCK_KEYS"])
    if num_splits is None:
        wanted = WAVES * num_multiprocessors(q.device)
        num_splits = divided_up(wanted, row_tiles * num_seqs * num_heads)
        num_splits = max(1, min(num_splits, key_tiles, MAX_SPLITS))
    lse = torch.empty((num_tokens, num_heads, num_splits), dtype=torch.float32, device=q.device)
    scales = lse if k_scale is None else k_scale
    strides = (
        q.stride(0),
        q.stride(1),
        k_cache.stride(0),
        block_tables.stride(0),
        block_tables.stride(1) if block_tables.dim() == 3 else 0,
        seq_lens.stride(0),
        seq_lens.stride(1) if seq_lens.dim() == 2 else 0,
    )
    heads = (num_heads, cache_heads, int(cache_heads == num_kv_heads))
    constants = {"GROUP": num_heads // num_kv_heads, "BLOCK_SLOTS": block_slots, **tiles}
    constants |= {"CODES": codes_of(k_cache), "WIDEN": INTERPRETED}
    factor = scale * LOG2_E
    with launching_on(q):
        query_lse_kernel[(row_tiles * num_seqs, num_heads, num_splits)](
            q, k_cache, scales, block_tables, cu_q_lens, seq_lens, lse, factor,
            *strides, *heads, row_tiles, num_splits, **constants, num_warps=4, num_stages=3,
        )  # fmt: skip
        column_sums_kernel[(key_tiles * num_seqs, num_kv_heads)](
            q, k_cache, scales, block_tables, cu_q_lens, seq_lens, lse, out, factor,
            *strides, out.stride(0), out.stride(1), *heads, key_tiles, num_splits,
            BLOCK_SPLITS=MAX_SPLITS, **constants, num_warps=4, num_stages=2,
        )  # fmt: skip


def pool_scores(scores: Tensor, seq_lens: Tensor, width: int, *, largest: bool) -> Tensor:
    """The kernel behind `ops.pool_scores`, which checks; twin: `reference.pool_scores`."""
    out = torch.empty_like(scores)
    num_seqs, num_kv_heads, size = scores.shape
    if out.numel():
        block = min(POOLED, power_of_two(size))
        with launching_on(scores):
            pool_scores_kernel[(num_seqs * num_kv_heads, divided_up(size, block))](
                scores, seq_lens, out, size, num_kv_heads, seq_lens.stride(0),
                seq_lens.stride(1) if seq_lens.dim() == 2 else 0,
                WIDTH=width, LARGEST=largest, BLOCK=block,
            )  # fmt: skip
    return out


def forms(number: str) -> Iterator[Form]:
    """Compile for current models' heads, windows and single queries; `number` is "bf16", …"""
    pointers = ("tables_ptr", "starts_ptr", "lens_ptr")
    strides = (
        *("q_token_stride", "q_head_stride", "k_block_stride", "table_stride"),
        *("table_head_stride", "len_stride", "len_head_stride"),
    )
    heads = ("num_heads", "cache_heads", "head_step")
    shared = {"q_ptr": f"*{number}", "k_scale_ptr": "*fp32", **dict.fromkeys(pointers, "*i32")}
    shared |= {"lse_ptr": "*fp32", "scale_log2": "fp32", **dict.fromkeys((*strides, *heads), "i32")}
    for dim, codes, max_rows in (
        *((128, PLAIN, 64), (128, PLAIN, 1), (128, INT8, 64), (128, FP8, 64)),
        *((64, PLAIN, 64), (256, PLAIN, 64)),
    ):
        cache = {"k_cache_ptr": POINTERS[codes] or f"*{number}"}
        tiles = tiles_of(dim, 4 if number == "fp32" else 2, max_rows)
        constants = {"GROUP": 4, "BLOCK_SLOTS": 16, **tiles, "CODES": codes, "WIDEN": False}
        at = f"dim={dim} codes={codes} rows={tiles['BLOCK_ROWS']}"
        yield Form(
            name=f"query_lse {at}",
            kernel=query_lse_kernel,
            types=shared | cache | dict.fromkeys(("row_tiles", "num_splits"), "i32"),
            constants=constants,
            num_warps=4,
            num_stages=3,
        )
        more = ("out_stride", "out_head_stride", "key_tiles", "num_splits")
        yield Form(
            name=f"column_sums {at}",
            kernel=column_sums_kernel,
            types=shared | cache | {"out_ptr": "*fp32"} | dict.fromkeys(more, "i32"),
            constants={**constants, "BLOCK_SPLITS": MAX_SPLITS},
            num_warps=4,
            num_stages=2,
        )
    integers = ("size", "num_kv_heads", "len_stride", "len_head_stride")
    for largest in (False, True):
        yield Form(
            name=f"pool_scores largest={largest:d}",
            kernel=pool_scores_kernel,
            types={
                **dict.fromkeys(("scores_ptr", "out_ptr"), "*fp32"),
                "lens_ptr": "*i32",
                **dict.fromkeys(integers, "i32"),
            },
            constants={"WIDTH": 5, "LARGEST": largest, "BLOCK": POOLED},
            num_warps=4,
            num_stages=3,
        )
