"""This file is about rotating queries and keys and filing keys and values, on a GPU in one launch.

Sources: RoFormer, Su et al., 2021 (the rotation); PagedAttention, Kwon et al., SOSP 2023 (slots).
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Iterator

import triton
import triton.language as tl
from torch import Tensor

from epidote_kernels.launching import Form, divided_up, launching_on, power_of_two

TILE = 1024  # elements of a half that a program holds at most; not tuned yet


@triton.jit
def _turned(low, high, cos, sin, kind):
    """Both halves after the rotation; every product and sum rounded to `kind`, as the twin does."""
    low_cos = (low * cos).to(kind).to(tl.float32)
    high_sin = (high * sin).to(kind).to(tl.float32)
    high_cos = (high * cos).to(kind).to(tl.float32)
    low_sin = (low * sin).to(kind).to(tl.float32)
    return (low_cos - high_sin).to(kind), (high_cos + low_sin).to(kind)


@triton.jit
def rope_kv_write_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    cos_ptr,
    sin_ptr,
    k_cache_ptr,
    v_cache_ptr,
    slots_ptr,
    q_token_stride,
    q_head_stride,
    k_token_stride,
    k_head_stride,
    v_token_stride,
    v_head_stride,
    cos_stride,
    sin_stride,
    slot_stride,
    k_block_stride,
    v_block_stride,
    num_heads,
    num_kv_heads,
    block_slots,
    HALF: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
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
        low, high = _turned(low, high, cos, sin, kind)
        tl.store(there, low, mask=mask)
        tl.store(there + HALF, high, mask=mask)
    else:
        slot = tl.load(slots_ptr + token * slot_stride)
        if slot >= 0:
            heads = (part - query_parts) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
            mask = (heads < num_kv_heads)[:, None] & (pairs < HALF)[None, :]
            block = slot // block_slots
            row = (slot % block_slots) * num_kv_heads + heads
            into = row[:, None] * (2 * HALF) + pairs[None, :]
            keys = k_ptr + token * k_token_stride + heads[:, None] * k_head_stride + pairs[None, :]
            low = tl.load(keys, mask=mask, other=0.0).to(tl.float32)
            high = tl.load(keys + HALF, mask=mask, other=0.0).to(tl.float32)
            low, high = _turned(low, high, cos, sin, kind)
            tl.store(k_cache_ptr + block * k_block_stride + into, low, mask=mask)
            tl.store(k_cache_ptr + block * k_block_stride + into + HALF, high, mask=mask)
            values = (
                v_ptr + token * v_token_stride + heads[:, None] * v_head_stride + pairs[None, :]
            )
            low = tl.load(values, mask=mask, other=0.0)
            high = tl.load(values + HALF, mask=mask, other=0.0)
            tl.store(v_cache_ptr + block * v_block_stride + into, low, mask=mask)
            tl.store(v_cache_ptr + block * v_block_stride + into + HALF, high, mask=mask)


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
            q.stride(0),
            q.stride(1),
            k.stride(0),
            k.stride(1),
            v.stride(0),
            v.stride(1),
            cos.stride(0),
            sin.stride(0),
            slots.stride(0),
            k_cache.stride(0),
            v_cache.stride(0),
            num_heads,
            num_kv_heads,
            k_cache.shape[1],
            **constants,
        )
    return q


def forms(number: str) -> Iterator[Form]:
    """Compile for the head dimensions of current models; `number` is "bf16", …"""
    numbers = ("q_ptr", "k_ptr", "v_ptr", "cos_ptr", "sin_ptr", "k_cache_ptr", "v_cache_ptr")
    integers = (
        *("q_token_stride", "q_head_stride", "k_token_stride", "k_head_stride"),
        *("v_token_stride", "v_head_stride", "cos_stride", "sin_stride", "slot_stride"),
        *("k_block_stride", "v_block_stride", "num_heads", "num_kv_heads", "block_slots"),
    )
    types = {name: f"*{number}" for name in numbers}
    types |= {"cos_ptr": "*fp32", "sin_ptr": "*fp32", "slots_ptr": "*i64"}
    types |= dict.fromkeys(integers, "i32")
    for dim, num_heads in ((64, 9), (80, 16), (128, 32), (256, 8)):
        yield Form(
            name=f"rope_kv_write dim={dim} heads={num_heads}",
            kernel=rope_kv_write_kernel,
            types=types,
            constants=_tiles(dim, num_heads),
            num_warps=4,
            num_stages=3,
        )
