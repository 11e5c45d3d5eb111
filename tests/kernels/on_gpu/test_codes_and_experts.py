"""One-byte caches, ragged heads, pictures, experts and scores on a CUDA device, at models' sizes.

The twin runs in fp32 on the same numbers; inputs are random, and unused slots of caches hold NaN or
the largest code.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from epidote_kernels import ops, reference
from epidote_kernels.fakes import cumulative, paged_batch
from epidote_kernels.reference.grouped_mm_moe import grouped_mm_moe
from epidote_kernels.reference.kv_codes import decoded, encoded, head_scales

pytestmark = pytest.mark.gpu

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
CODES = [torch.int8, torch.float8_e4m3fn]


def relative_error(got: Tensor, want: Tensor) -> float:
    return float((got.float() - want.float()).norm() / want.float().norm())


LIMIT = {FP32: 1e-4, FP16: 3e-3, BF16: 1e-2}


def coded(batch: Any, code: torch.dtype) -> dict[str, Tensor]:
    k_scale, v_scale = head_scales(batch.k_cache, code), head_scales(batch.v_cache, code)
    return {
        "k_cache": encoded(batch.k_cache, k_scale, code),
        "v_cache": encoded(batch.v_cache, v_scale, code),
        "k_scale": k_scale,
        "v_scale": v_scale,
        "block_tables": batch.block_tables,
        "seq_lens": batch.seq_lens,
    }


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("dtype", [FP32, FP16, BF16])
@pytest.mark.parametrize(("group", "dim", "block_size"), [(4, 128, 16), (7, 64, 64), (1, 80, 32)])
def test_decode_of_codes(
    group: int, dim: int, block_size: int, dtype: torch.dtype, code: torch.dtype
) -> None:
    batch = paged_batch(
        [1, 0, 4097, 777, 64], num_kv_heads=4, dim=dim, block_size=block_size, device="cuda"
    )
    q = torch.randn(5, 4 * group, dim).to(dtype)
    call = {**coded(batch, code), "scale": dim**-0.5}
    want = reference.paged_decode_attention(q.float(), **call)
    assert relative_error(ops.paged_decode_attention(q, **call), want) < LIMIT[dtype]


@pytest.mark.parametrize("batch_size", [1, 3, 200])
def test_decode_of_ragged_batches(batch_size: int) -> None:
    """Equal stretches cut units anywhere: many lengths, few and many programs."""
    lengths = torch.randint(0, 3000, (batch_size,), device="cpu").tolist()
    lengths[0] = 9001
    batch = paged_batch(lengths, num_kv_heads=8, dim=128, dtype=BF16, device="cuda")
    q = torch.randn(batch_size, 32, 128).to(BF16)
    paged = (batch.block_tables, batch.seq_lens)
    want = reference.paged_decode_attention(
        q.float(), batch.k_cache.float(), batch.v_cache.float(), *paged, scale=128**-0.5
    )
    got = ops.paged_decode_attention(q, batch.k_cache, batch.v_cache, *paged, scale=128**-0.5)
    assert relative_error(got, want) < LIMIT[BF16]


def test_decode_of_heads_of_different_lengths() -> None:
    batch = paged_batch([2000, 300], num_kv_heads=4, dim=128, dtype=BF16, device="cuda")
    lens = torch.tensor([[2000, 5, 0, 1024], [299, 300, 16, 17]], dtype=torch.int32)
    q = torch.randn(2, 16, 128).to(BF16)
    want = reference.paged_decode_attention(
        q.float(), batch.k_cache.float(), batch.v_cache.float(), batch.block_tables, lens, scale=0.1
    )
    got = ops.paged_decode_attention(
        q, batch.k_cache, batch.v_cache, batch.block_tables, lens, scale=0.1
    )
    assert relative_error(got, want) < LIMIT[BF16]
    assert not got[0, 8:12].any()


@pytest.mark.parametrize("code", [None, *CODES])
@pytest.mark.parametrize("spans", [False, True])
def test_prefill_of_codes_and_pictures(spans: bool, code: torch.dtype | None) -> None:
    chunks, prefixes = [700, 33], [1000, 0]
    lens = [c + p for c, p in zip(chunks, prefixes, strict=True)]
    batch = paged_batch(lens, num_kv_heads=2, dim=128, dtype=FP32, device="cuda")
    ends = torch.zeros(sum(chunks), dtype=torch.int32)
    ends[50:600] = 1000 + 600
    more: dict[str, Any] = {"span_ends": ends if spans else None}
    if code is None:
        batch_call = {name: getattr(batch, name) for name in ("block_tables", "seq_lens")}
        caches = {"k_cache": batch.k_cache.to(BF16), "v_cache": batch.v_cache.to(BF16)}
        wide = {name: cache.float() for name, cache in caches.items()}
    else:
        batch_call = coded(batch, code)
        caches = wide = {}
    q = torch.randn(sum(chunks), 8, 128).to(BF16)
    more |= {"cu_q_lens": cumulative(chunks, "cuda"), "scale": 128**-0.5, "max_q_len": 700}
    want = reference.paged_prefill_attention(q.float(), **{**batch_call, **wide}, **more)
    got = ops.paged_prefill_attention(q, **{**batch_call, **caches}, **more)
    assert relative_error(got, want) < LIMIT[BF16]


@pytest.mark.parametrize("code", CODES)
def test_rotation_files_codes_and_norms_heads(code: torch.dtype) -> None:
    tokens, dim = 257, 128
    qkv = torch.randn(tokens, 40, dim).to(BF16)
    angles = torch.rand(tokens, dim // 2) * 6
    slots = torch.randperm(32 * 16)[:tokens]
    scales = {"k_scale": torch.rand(4) + 0.02, "v_scale": torch.rand(4) + 0.02}
    norms = {"q_norm": torch.randn(dim).to(BF16), "k_norm": torch.randn(dim).to(BF16), "eps": 1e-6}
    filed = []
    for backend in (ops, reference):
        caches = [torch.zeros(32, 16, 4, dim, dtype=code) for _ in range(2)]
        q, k, v = qkv.clone().split((32, 4, 4), 1)
        turned = backend.rope_kv_write(
            q, k, v, angles.cos(), angles.sin(), *caches, slots, **scales, **norms
        )
        filed.append((turned, *caches))
    (got_q, got_k, got_v), (want_q, want_k, want_v) = filed
    assert relative_error(got_q, want_q) < LIMIT[BF16]
    for got, want, scale in ((got_k, want_k, "k_scale"), (got_v, want_v, "v_scale")):
        wide = [decoded(cache, scales[scale], FP32) for cache in (got, want)]
        assert relative_error(*wide) < LIMIT[BF16]


@pytest.mark.parametrize("dim", [72, 80, 96])
@pytest.mark.parametrize("dtype", [FP32, FP16, BF16])
def test_pictures_of_heads_in_two_parts(dim: int, dtype: torch.dtype) -> None:
    lengths = [1, 64, 1000, 257]
    qkv = torch.randn(sum(lengths) + 3, 3, 16, dim).to(dtype)
    sized = {"scale": dim**-0.5, "max_seqlen": 1000}
    bounds = cumulative(lengths, "cuda")
    want = reference.vision_attention(*qkv.float().unbind(1), bounds, **sized)
    got = ops.vision_attention(*qkv.unbind(1), bounds, **sized)
    assert relative_error(got, want) < LIMIT[dtype]
    assert not got[-3:].any()


@pytest.mark.parametrize("dtype", [FP32, FP16, BF16])
@pytest.mark.parametrize("tokens", [1, 7, 64, 1000])
@pytest.mark.parametrize("skewed", [False, True])
def test_experts(skewed: bool, tokens: int, dtype: torch.dtype) -> None:
    num_experts, top_k, hidden, inner = 64, 6, 512, 384
    x = torch.randn(tokens, hidden).to(dtype)
    gate_up = (torch.randn(num_experts, 2 * inner, hidden) * hidden**-0.5).to(dtype)
    down = (torch.randn(num_experts, hidden, inner) * inner**-0.5).to(dtype)
    logits = torch.randn(tokens, num_experts)
    if skewed:
        logits[:, :top_k] += 20.0
    weights, experts = ops.moe_route(logits, top_k)
    assert torch.equal(experts, reference.moe_route(logits, top_k, renormalise=True)[1])
    want = reference.fused_moe(x.float(), gate_up.float(), down.float(), weights, experts)
    got = ops.fused_moe(x, gate_up, down, weights, experts)
    assert relative_error(got, want) < LIMIT[dtype]
    assert torch.equal(got, ops.fused_moe(x, gate_up, down, weights, experts))
    if dtype is BF16:
        assert relative_error(grouped_mm_moe(x, gate_up, down, weights, experts), want) < 1e-2
        fused = {"activation": ops.silu_mul, "sums_by_product": True}
        assert (
            relative_error(grouped_mm_moe(x, gate_up, down, weights, experts, **fused), want) < 1e-2
        )


@pytest.mark.parametrize("code", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("dtype", [FP32, FP16, BF16])
@pytest.mark.parametrize("tokens", [1, 7, 64, 1000])
def test_experts_in_8_bits(tokens: int, dtype: torch.dtype, code: torch.dtype) -> None:
    num_experts, top_k, hidden, inner = 64, 6, 512, 384
    x = torch.randn(tokens, hidden).to(dtype)
    held, scales = [], []
    for shape in ((num_experts, 2 * inner, hidden), (num_experts, hidden, inner)):
        weight = torch.randn(shape) * shape[2] ** -0.5
        values, found = ops.quantize_weight(weight.flatten(0, 1), code)
        held.append(values.view(shape))
        scales.append(found.view(shape[:2]))
    weights, experts = ops.moe_route(torch.randn(tokens, num_experts), top_k)
    wide = [w.float() * s[..., None] for w, s in zip(held, scales, strict=True)]
    want = reference.fused_moe(x.float(), wide[0], wide[1], weights, experts)
    both = scales[0], scales[1]
    got = ops.fused_moe(x, held[0], held[1], weights, experts, scales=both)
    assert relative_error(got, want) < LIMIT[dtype]
    again = ops.fused_moe(x, held[0], held[1], weights, experts, scales=both)
    assert torch.equal(got, again)


@pytest.mark.parametrize("num_experts", [1, 3, 5, 8, 12])
def test_experts_of_other_devices_are_skipped_however_many_are_here(num_experts: int) -> None:
    x = torch.randn(300, 128).to(BF16)
    gate_up = (torch.randn(num_experts, 192, 128) * 128**-0.5).to(BF16)
    down = (torch.randn(num_experts, 128, 96) * 96**-0.5).to(BF16)
    experts = torch.randint(-2, num_experts + 3, (300, 4), dtype=torch.int32)
    weights = torch.rand(300, 4)
    want = reference.fused_moe(x.float(), gate_up.float(), down.float(), weights, experts)
    weights[(experts < 0) | (experts >= num_experts)] = float("nan")
    assert relative_error(ops.fused_moe(x, gate_up, down, weights, experts), want) < LIMIT[BF16]


@pytest.mark.parametrize("dtype", [FP32, FP16, BF16])
@pytest.mark.parametrize(("window", "before"), [(1, 4000), (32, 5000), (700, 0)])
def test_column_sums(window: int, before: int, dtype: torch.dtype) -> None:
    batch = paged_batch([window + before] * 2, num_kv_heads=4, dim=128, dtype=dtype, device="cuda")
    q = torch.randn(2 * window, 16, 128).to(dtype)
    paged = (batch.block_tables, cumulative([window] * 2, "cuda"), batch.seq_lens)
    sized = {"scale": 128**-0.5, "max_q_len": window}
    want = torch.zeros(2, 4, window + before)
    reference.attention_column_sums(q.float(), batch.k_cache.float(), *paged, want, **sized)
    got = ops.attention_column_sums(q, batch.k_cache, *paged, **sized, max_seq_len=window + before)
    assert relative_error(got, want) < LIMIT[dtype]
    pooled = ops.pool_scores(got, batch.seq_lens)
    assert (
        relative_error(pooled, reference.pool_scores(got, batch.seq_lens, 5, largest=False)) < 1e-5
    )
