"""This file is about one query token per sequence against its paged KV cache, on a GPU.

A unit of work is one KV head of one sequence with all query heads that share it. Every program
takes an equal stretch of all units' tiles (`decode_work`); a unit cut between programs leaves its
parts with their log-sum-exp, and a second kernel merges them.

Sources: PagedAttention, Kwon et al., SOSP 2023; online softmax: FlashAttention-2, Dao, 2023; parts
of one sequence: Flash-Decoding, Dao et al., 2023; equal stretches: Stream-K, Osama et al., PPoPP
2023; shared KV heads: GQA, Ainslie et al., EMNLP 2023.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Iterator, Mapping

import torch
import triton
import triton.language as tl
from torch import Tensor

from epidote_kernels.decode_work import stretch_of_program
from epidote_kernels.kv_codes import FP8, INT8, PLAIN, POINTERS, codes_of, query_for
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
from epidote_kernels.tilings import Tiling, known_tilings, tiling_for

MIN_TILES = 2  # tiles below which another part costs more than it saves; not measured yet
BLOCK_UNITS = 512  # units a program counts at once: four a thread
BLOCK_PARTS = 32  # parts of a unit the merge holds at once
# sizes of the batch and the table change from step to step: no new compilation for them
VOLATILE = ("num_units", "min_tiles", "table_stride", "table_head_stride", "len_stride")


@triton.jit(do_not_specialize=VOLATILE, do_not_specialize_on_alignment=INDEX_POINTERS)
def paged_decode_kernel(
    q_ptr,
    k_cache_ptr,
    v_cache_ptr,
    k_scale_ptr,
    v_scale_ptr,
    tables_ptr,
    lens_ptr,
    out_ptr,
    parts_ptr,
    lse_ptr,
    spans_ptr,
    scale_log2,
    q_seq_stride,
    q_head_stride,
    k_block_stride,
    v_block_stride,
    table_stride,
    table_head_stride,
    len_stride,
    len_head_stride,
    num_units,
    num_kv_heads,
    cache_heads,
    head_step,
    min_tiles,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_SLOTS: tl.constexpr,
    BLOCK_UNITS: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    CODES: tl.constexpr,
    WIDEN: tl.constexpr,
):
    program = tl.program_id(0)
    place, last, unit, begin = stretch_of_program(
        lens_ptr, num_units, num_kv_heads, len_stride, len_head_stride, min_tiles,
        BLOCK_UNITS, BLOCK_TOKENS,
    )  # fmt: skip
    within = tl.arange(0, BLOCK_HEADS)
    dims = tl.arange(0, BLOCK_DIM)
    in_dim = (dims < DIM)[None, :]
    q_mask = (within < GROUP)[:, None] & in_dim
    while place < last:
        seq = (unit // num_kv_heads).to(tl.int64)
        kv_head = unit % num_kv_heads
        length = tl.load(lens_ptr + seq * len_stride + kv_head * len_head_stride)
        end = begin + tl.cdiv(length, BLOCK_TOKENS)
        stop = tl.minimum(end, last)
        table = tables_ptr + seq * table_stride + kv_head * table_head_stride
        heads = kv_head * GROUP + within
        q_at = q_ptr + seq * q_seq_stride + heads[:, None] * q_head_stride + dims[None, :]
        q = query_for(tl.load(q_at, mask=q_mask, other=0.0), CODES, WIDEN)
        score_scale = scale_log2
        out_scale = 1.0
        if CODES:
            score_scale = scale_log2 * tl.load(k_scale_ptr + kv_head)
            out_scale = tl.load(v_scale_ptr + kv_head)

        top = tl.full((BLOCK_HEADS,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_HEADS,), tl.float32)
        acc = tl.zeros((BLOCK_HEADS, BLOCK_DIM), tl.float32)
        last_token = tl.minimum((stop - begin) * BLOCK_TOKENS, length)
        for start in range((place - begin) * BLOCK_TOKENS, last_token, BLOCK_TOKENS):
            tokens = start + tl.arange(0, BLOCK_TOKENS)
            live = tokens < last_token
            block = tl.load(table + tokens // BLOCK_SLOTS, mask=live, other=0)
            row = (tokens % BLOCK_SLOTS) * cache_heads + kv_head * head_step
            k_row = block.to(tl.int64) * k_block_stride + row * DIM
            v_row = block.to(tl.int64) * v_block_stride + row * DIM
            kv_mask = live[:, None] & in_dim
            k = tl.load(k_cache_ptr + k_row[:, None] + dims[None, :], mask=kv_mask, other=0.0)
            v = tl.load(v_cache_ptr + v_row[:, None] + dims[None, :], mask=kv_mask, other=0.0)
            if CODES or WIDEN:  # codes are whole numbers of q's type too: nothing is rounded
                k = k.to(q.dtype)
                v = v.to(q.dtype)
            scores = tl.dot(q, tl.trans(k), input_precision="ieee") * score_scale
            scores = tl.where(live[None, :], scores, float("-inf"))
            new_top = tl.maximum(top, tl.max(scores, 1))  # finite: every tile has a live token
            shrink = tl.exp2(top - new_top)
            weights = tl.exp2(scores - new_top[:, None])
            total = total * shrink + tl.sum(weights, 1)
            acc = acc * shrink[:, None]
            acc += tl.dot(weights.to(v.dtype), v, input_precision="ieee")
            top = new_top

        # a unit of no tiles is passed here at times; the merge writes its zeros
        acc = acc * (out_scale / tl.where(total > 0, total, 1.0))[:, None]
        if place == begin:
            tl.store(spans_ptr + 2 * unit, program)
        if stop == end:
            tl.store(spans_ptr + 2 * unit + 1, program)
        if (place == begin) & (stop == end):
            out_at = out_ptr + (unit * GROUP + within).to(tl.int64)[:, None] * DIM + dims[None, :]
            tl.store(out_at, acc.to(out_ptr.dtype.element_ty), mask=q_mask)
        else:
            # a program has at most two parts: one that began before it, one that goes on after it
            slot = (2 * program + (place == begin)) * GROUP + within
            tl.store(lse_ptr + slot, top + tl.log2(total), mask=within < GROUP)
            tl.store(parts_ptr + slot[:, None] * DIM + dims[None, :], acc, mask=q_mask)
        place = stop
        begin = end
        unit += 1


@triton.jit(do_not_specialize=("len_stride",), do_not_specialize_on_alignment=INDEX_POINTERS)
def merge_parts_kernel(
    parts_ptr,
    lse_ptr,
    spans_ptr,
    lens_ptr,
    out_ptr,
    len_stride,
    len_head_stride,
    num_kv_heads,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    unit = tl.program_id(0)
    within = tl.program_id(1)
    seq = (unit // num_kv_heads).to(tl.int64)
    length = tl.load(lens_ptr + seq * len_stride + (unit % num_kv_heads) * len_head_stride)
    dims = tl.arange(0, BLOCK_DIM)
    out_at = out_ptr + (unit * GROUP + within).to(tl.int64) * DIM + dims
    if length == 0:
        tl.store(out_at, tl.zeros((BLOCK_DIM,), out_ptr.dtype.element_ty), mask=dims < DIM)
        return
    first = tl.load(spans_ptr + 2 * unit)
    last = tl.load(spans_ptr + 2 * unit + 1)
    if first == last:
        return  # one program saw it whole and wrote it
    top = float("-inf")
    total = 0.0
    acc = tl.zeros((BLOCK_DIM,), tl.float32)
    for chunk in range(first, last + 1, BLOCK_PARTS):
        programs = chunk + tl.arange(0, BLOCK_PARTS)
        live = programs <= last
        slots = (2 * programs + (programs == first)) * GROUP + within
        lse = tl.load(lse_ptr + slots, mask=live, other=float("-inf"))
        mask = live[:, None] & (dims < DIM)[None, :]
        parts = tl.load(parts_ptr + slots[:, None] * DIM + dims[None, :], mask=mask, other=0.0)
        new_top = tl.maximum(top, tl.max(lse, 0))
        shrink = tl.exp2(top - new_top)
        weights = tl.exp2(lse - new_top)
        total = total * shrink + tl.sum(weights, 0)
        acc = acc * shrink + tl.sum(parts * weights[:, None], 0)
        top = new_top
    tl.store(out_at, (acc / total).to(out_ptr.dtype.element_ty), mask=dims < DIM)


def tiling_key(dim: int, cache_itemsize: int, q_itemsize: int) -> str:
    """What the tiling depends on.

    >>> tiling_key(80, 2, 2), tiling_key(64, 1, 4)
    ('kv16 dim=128', 'kv8 dim=64 fp32')
    """
    fp32 = " fp32" if q_itemsize == 4 > cache_itemsize else ""
    return f"kv{8 * cache_itemsize} dim={max(16, power_of_two(dim))}{fp32}"


def default_tiling(dim: int, cache_itemsize: int, q_itemsize: int) -> Tiling:
    """For a device without a table: tiles of 16 KiB of keys, two programs a multiprocessor.

    A block's number is loaded before its keys, so that two of the stages hold numbers only. fp32
    has no matrix instruction at full precision: a tile that its registers hold is small.
    """
    block_dim = max(16, power_of_two(dim))
    tokens = max(16, min(128, 16384 // (block_dim * cache_itemsize)))
    if q_itemsize == 4:
        tokens = max(16, min(32, 2048 // block_dim))
    sizes = {"BLOCK_TOKENS": tokens, "programs": 2}
    return Tiling(sizes=sizes, num_warps=4, num_stages=5 if q_itemsize < 4 else 3)


def constants_of(tiling: Tiling, dim: int, group: int, block_slots: int) -> dict[str, int]:
    """The kernel's constants but for CODES and WIDEN."""
    return {
        "GROUP": group,
        "DIM": dim,
        "BLOCK_SLOTS": block_slots,
        "BLOCK_UNITS": BLOCK_UNITS,
        "BLOCK_HEADS": max(16, power_of_two(group)),  # tl.dot takes no less than 16
        "BLOCK_DIM": max(16, power_of_two(dim)),
        "BLOCK_TOKENS": tiling.sizes["BLOCK_TOKENS"],
    }


def paged_decode_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    seq_lens: Tensor,
    *,
    scale: float,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    num_programs: int | None = None,
    min_tiles: int = MIN_TILES,
    tiling: Tiling | None = None,
) -> Tensor:
    """The kernel behind `ops.paged_decode_attention`, which checks; twin: `reference`'s.

    num_programs, min_tiles, tiling   for tests and measurements; by default the device decides
    """
    num_seqs, num_heads, dim = q.shape
    block_slots, cache_heads = k_cache.shape[1:3]
    by_head = block_tables.dim() == 3
    num_kv_heads = block_tables.shape[1] if by_head else cache_heads
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    if not out.numel():
        return out
    group = num_heads // num_kv_heads
    if tiling is None:
        sizes = (dim, k_cache.element_size(), q.element_size())
        tiling = tiling_for("paged_decode", tiling_key(*sizes), default_tiling(*sizes), q.device)
    constants = constants_of(tiling, dim, group, block_slots)
    num_units = num_seqs * num_kv_heads
    if num_programs is None:
        most = divided_up(block_tables.shape[-1] * block_slots, constants["BLOCK_TOKENS"])
        wanted = tiling.sizes["programs"] * num_multiprocessors(q.device)
        num_programs = max(1, min(wanted, num_units * divided_up(most, min_tiles)))
    parts = torch.empty((2 * num_programs, group, dim), dtype=torch.float32, device=q.device)
    lse = torch.empty((2 * num_programs, group), dtype=torch.float32, device=q.device)
    spans = torch.empty((num_units, 2), dtype=torch.int32, device=q.device)
    len_strides = (seq_lens.stride(0), seq_lens.stride(1) if seq_lens.dim() == 2 else 0)
    with launching_on(q):
        paged_decode_kernel[(num_programs,)](
            q,
            k_cache,
            v_cache,
            lse if k_scale is None else k_scale,
            lse if v_scale is None else v_scale,
            block_tables,
            seq_lens,
            out,
            parts,
            lse,
            spans,
            scale * LOG2_E,
            q.stride(0),
            q.stride(1),
            k_cache.stride(0),
            v_cache.stride(0),
            block_tables.stride(0),
            block_tables.stride(1) if by_head else 0,
            *len_strides,
            num_units,
            num_kv_heads,
            cache_heads,
            int(cache_heads == num_kv_heads),
            min_tiles,
            CODES=codes_of(k_cache),
            WIDEN=INTERPRETED,
            **constants,
            num_warps=tiling.num_warps,
            num_stages=tiling.num_stages,
        )
        merge_parts_kernel[(num_units, group)](
            parts,
            lse,
            spans,
            seq_lens,
            out,
            *len_strides,
            num_kv_heads,
            GROUP=group,
            DIM=dim,
            BLOCK_PARTS=BLOCK_PARTS,
            BLOCK_DIM=constants["BLOCK_DIM"],
            num_warps=4,
        )
    return out


def forms(number: str) -> Iterator[Form]:
    """Compile for current models' heads, by the rule and by every table; `number` is "bf16", …"""
    size = 4 if number == "fp32" else 2
    wanted = [
        (dim, group, codes, default_tiling(dim, size if codes == PLAIN else 1, size))
        for dim, group, codes in (
            *((128, 4, PLAIN), (128, 4, INT8), (128, 4, FP8)),
            *((64, 3, PLAIN), (80, 1, INT8), (256, 4, PLAIN), (256, 4, FP8)),
        )
    ]
    for key, tiling in known_tilings("paged_decode"):
        bits, dim = (int(part.lstrip("kvdim=")) for part in key.split())
        if bits == 8 and size == 2:
            wanted += [(dim, 4, codes, tiling) for codes in (INT8, FP8)]
        elif bits == 8 * size:
            wanted.append((dim, 4, PLAIN, tiling))
    seen: list[Mapping[str, object]] = []
    for dim, group, codes, tiling in wanted:
        constants = constants_of(tiling, dim, group, 16) | {"CODES": codes, "WIDEN": False}
        if {**constants, **tiling.as_json()} not in seen:
            seen.append({**constants, **tiling.as_json()})
            yield _decode_form(number, constants, tiling)
    for dim in (64, 128, 256):
        yield Form(
            name=f"merge_parts dim={dim}",
            kernel=merge_parts_kernel,
            types={
                **dict.fromkeys(("parts_ptr", "lse_ptr"), "*fp32"),
                **dict.fromkeys(("spans_ptr", "lens_ptr"), "*i32"),
                "out_ptr": f"*{number}",
                **dict.fromkeys(("len_stride", "len_head_stride", "num_kv_heads"), "i32"),
            },
            constants={"GROUP": 4, "DIM": dim, "BLOCK_PARTS": BLOCK_PARTS, "BLOCK_DIM": dim},
            num_warps=4,
            num_stages=3,
        )


def _decode_form(number: str, constants: dict[str, int], tiling: Tiling) -> Form:
    integers = (
        *("q_seq_stride", "q_head_stride", "k_block_stride", "v_block_stride"),
        *("table_stride", "table_head_stride", "len_stride", "len_head_stride"),
        *("num_units", "num_kv_heads", "cache_heads", "head_step", "min_tiles"),
    )
    floats = ("k_scale_ptr", "v_scale_ptr", "parts_ptr", "lse_ptr")
    cache = POINTERS[constants["CODES"]] or f"*{number}"
    return Form(
        name=f"paged_decode dim={constants['DIM']} group={constants['GROUP']} "
        f"codes={constants['CODES']}",
        kernel=paged_decode_kernel,
        types={
            **dict.fromkeys(("q_ptr", "out_ptr"), f"*{number}"),
            **dict.fromkeys(("k_cache_ptr", "v_cache_ptr"), cache),
            **dict.fromkeys(floats, "*fp32"),
            **dict.fromkeys(("tables_ptr", "lens_ptr", "spans_ptr"), "*i32"),
            "scale_log2": "fp32",
            **dict.fromkeys(integers, "i32"),
        },
        constants=constants,
        num_warps=tiling.num_warps,
        num_stages=tiling.num_stages,
    )
