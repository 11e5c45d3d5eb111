"""This file is about rotating queries and keys and filing keys and values, on a GPU in one launch.

Optionally each head is normalised first (QK-norm), and keys and values are filed as codes.

Sources: RoFormer, Su et al., 2021 (the rotation); PagedAttention, Kwon et al., SOSP 2023 (slots);
QK-norm: Scaling Vision Transformers to 22 Billion Parameters, Dehghani et al., ICML 2023.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Iterator

import triton
import triton.language as tl
from torch import Tensor

from epidote_kernels.kv_codes import FP8, INT8, PLAIN, POINTERS, codes_of, encoded
from epidote_kernels.launching import (
    INDEX_POINTERS,
    Form,
    divided_up,
    launching_on,
    power_of_two,
)

TILE = 1024  # elements of a half that a program holds at most; not tuned yet
VOLATILE = ("slot_stride", "slot_head_stride")  # differ between steps: no new compilation for them


@triton.jit
def _turned(low, high, cos, sin, kind):
    """Both halves after the rotation; every product and sum rounded to `kind`, as the twin does."""
    low_cos = (low * cos).to(kind).to(tl.float32)
    high_sin = (high * sin).to(kind).to(tl.float32)
    high_cos = (high * cos).to(kind).to(tl.float32)
    low_sin = (low * sin).to(kind).to(tl.float32)
    return (low_cos - high_sin).to(kind), (high_cos + low_sin).to(kind)


@triton.jit
def _normed(low, high, weight_ptr, pairs, eps, kind, HALF: tl.constexpr):
    """Both halves of whole heads after RMS normalisation, rounded where `rms_norm` does."""
    squares = tl.sum(low * low, axis=1) + tl.sum(high * high, axis=1)
    scale = tl.rsqrt(squares / (2 * HALF) + eps)[:, None]
    mask = pairs < HALF
    low_weight = tl.load(weight_ptr + pairs, mask=mask, other=0.0).to(tl.float32)[None, :]
    high_weight = tl.load(weight_ptr + HALF + pairs, mask=mask, other=0.0).to(tl.float32)[None, :]
    low = ((low * scale).to(kind).to(tl.float32) * low_weight).to(kind).to(tl.float32)
    high = ((high * scale).to(kind).to(tl.float32) * high_weight).to(kind).to(tl.float32)
    return low, high


@triton.jit(do_not_specialize=VOLATILE, do_not_specialize_on_alignment=INDEX_POINTERS)
def rope_kv_write_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    cos_ptr,
    sin_ptr,
    k_cache_ptr,
    v_cache_ptr,
    slots_ptr,
    k_scale_ptr,
    v_scale_ptr,
    q_weight_ptr,
    k_weight_ptr,
    eps,
    q_token_stride,
    q_head_stride,
    k_token_stride,
    k_head_stride,
    v_token_stride,
    v_head_stride,
    cos_stride,
    sin_stride,
    slot_stride,
    slot_head_stride,
    k_block_stride,
    v_block_stride,
    num_heads,
    num_kv_heads,
    cache_heads,
    head_step,
    block_slots,
    HALF: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    NORM: tl.constexpr,
    CODES: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    query_parts = tl.cdiv(num_heads, BLOCK_HEADS)
    pairs = tl.arange(0, BLOCK_HALF)
    kind = q_ptr.dtype.element_ty
    cos = tl.load(cos_ptr + token * cos_stride + pairs, mask=pairs < HALF, other=0.0)
    sin = tl.load(sin_ptr + token * sin_stride + pairs, mask=pairs < HALF, other=0.0)
    cos = cos.to(kind).to(tl.float32)[None, :]
    sin = sin.to(kind).to(tl.float32)[None, :]
    if part < query_parts:
        heads = part * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
        mask = (heads < num_heads)[:, None] & (pairs < HALF)[None, :]
        there = q_ptr + token * q_token_stride + heads[:, None] * q_head_stride + pairs[None, :]
        low = tl.load(there, mask=mask, other=0.0).to(tl.float32)
        high = tl.load(there + HALF, mask=mask, other=0.0).to(tl.float32)
        if NORM:
            low, high = _normed(low, high, q_weight_ptr, pairs, eps, kind, HALF)
        low, high = _turned(low, high, cos, sin, kind)
        tl.store(there, low, mask=mask)
        tl.store(there + HALF, high, mask=mask)
    else:
        heads = (part - query_parts) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
        exists = heads < num_kv_heads
        at = slots_ptr + token * slot_stride + heads * slot_head_stride
        slot = tl.load(at, mask=exists, other=-1)
        mask = exists[:, None] & (pairs < HALF)[None, :]
        filed = (slot >= 0)[:, None] & mask
        slot = tl.maximum(slot, 0)
        block = slot // block_slots
        # blocks of one head each have no rows of other heads between
        row = (slot % block_slots) * cache_heads + heads * head_step
        into = row[:, None] * (2 * HALF) + pairs[None, :]
        k_into = k_cache_ptr + (block * k_block_stride)[:, None] + into
        v_into = v_cache_ptr + (block * v_block_stride)[:, None] + into
        k_scale, v_scale = 1.0, 1.0
        if CODES:
            k_scale = tl.load(k_scale_ptr + heads, mask=exists, other=1.0)[:, None]
            v_scale = tl.load(v_scale_ptr + heads, mask=exists, other=1.0)[:, None]
        filed_as = k_cache_ptr.dtype.element_ty
        keys = k_ptr + token * k_token_stride + heads[:, None] * k_head_stride + pairs[None, :]
        low = tl.load(keys, mask=mask, other=0.0).to(tl.float32)
        high = tl.load(keys + HALF, mask=mask, other=0.0).to(tl.float32)
        if NORM:
            low, high = _normed(low, high, k_weight_ptr, pairs, eps, kind, HALF)
        low, high = _turned(low, high, cos, sin, kind)
        tl.store(k_into, encoded(low, k_scale, filed_as, CODES), mask=filed)
        tl.store(k_into + HALF, encoded(high, k_scale, filed_as, CODES), mask=filed)
        values = v_ptr + token * v_token_stride + heads[:, None] * v_head_stride + pairs[None, :]
        low = tl.load(values, mask=mask, other=0.0)
        high = tl.load(values + HALF, mask=mask, other=0.0)
        tl.store(v_into, encoded(low, v_scale, filed_as, CODES), mask=filed)
        tl.store(v_into + HALF, encoded(high, v_scale, filed_as, CODES), mask=filed)


def _tiles(dim: int, num_heads: int) -> dict[str, int]:
    block_half = power_of_two(dim // 2)
    heads = min(power_of_two(num_heads), max(1, TILE // block_half))
    return {"HALF": dim // 2, "BLOCK_HEADS": heads, "BLOCK_HALF": block_half}


def rope_kv_write(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
    *,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    eps: float = 0.0,
) -> Tensor:
    """The kernel behind `ops.rope_kv_write`, which checks; twin: `reference.rope_kv_write`.

    Rotates `q` in place and returns it.
    """
    tokens, num_heads, dim = q.shape
    num_kv_heads = k.shape[1]
    if not tokens or not num_heads:
        return q
    constants = _tiles(dim, num_heads)
    heads = constants["BLOCK_HEADS"]
    with launching_on(q):
        rope_kv_write_kernel[
            (tokens, divided_up(num_heads, heads) + divided_up(num_kv_heads, heads))
        ](
            q,
            k,
            v,
            cos,
            sin,
            k_cache,
            v_cache,
            slots,
            cos if k_scale is None else k_scale,
            cos if v_scale is None else v_scale,
            q if q_norm is None else q_norm,
            q if k_norm is None else k_norm,
            float(eps),
            q.stride(0),
            q.stride(1),
            k.stride(0),
            k.stride(1),
            v.stride(0),
            v.stride(1),
            cos.stride(0),
            sin.stride(0),
            slots.stride(0),
            slots.stride(1) if slots.dim() == 2 else 0,
            k_cache.stride(0),
            v_cache.stride(0),
            num_heads,
            num_kv_heads,
            k_cache.shape[2],
            int(k_cache.shape[2] == num_kv_heads),
            k_cache.shape[1],
            NORM=q_norm is not None,
            CODES=codes_of(k_cache),
            **constants,
        )
    return q


def forms(number: str) -> Iterator[Form]:
    """Compile for the head dimensions of current models; `number` is "bf16", …"""
    numbers = ("q_ptr", "k_ptr", "v_ptr", "q_weight_ptr", "k_weight_ptr")
    floats = ("cos_ptr", "sin_ptr", "k_scale_ptr", "v_scale_ptr")
    integers = (
        *("q_token_stride", "q_head_stride", "k_token_stride", "k_head_stride"),
        *("v_token_stride", "v_head_stride", "cos_stride", "sin_stride"),
        *("slot_stride", "slot_head_stride", "k_block_stride", "v_block_stride"),
        *("num_heads", "num_kv_heads", "cache_heads", "head_step", "block_slots"),
    )
    types = dict.fromkeys(numbers, f"*{number}") | dict.fromkeys(floats, "*fp32")
    types |= {"slots_ptr": "*i64", "eps": "fp32"} | dict.fromkeys(integers, "i32")
    for dim, num_heads, norm, codes in (
        (64, 9, False, PLAIN),
        (80, 16, False, INT8),
        (128, 32, True, PLAIN),
        (128, 32, True, INT8),
        (128, 32, True, FP8),
        (256, 8, True, FP8),
    ):
        cache = POINTERS[codes] or f"*{number}"
        yield Form(
            name=f"rope_kv_write dim={dim} heads={num_heads} codes={codes}",
            kernel=rope_kv_write_kernel,
            types=types | dict.fromkeys(("k_cache_ptr", "v_cache_ptr"), cache),
            constants={**_tiles(dim, num_heads), "NORM": norm, "CODES": codes},
            num_warps=4,
            num_stages=3,
        )
