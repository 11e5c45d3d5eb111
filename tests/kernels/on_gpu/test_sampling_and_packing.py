"""Sampling, packing and 8-bit products on a CUDA device, at sizes of real models."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from epidote_kernels import ops, reference

pytestmark = pytest.mark.gpu

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
DTYPES = [BF16, FP16, FP32]


def parameters(rows: int, temperature: float, top_k: int, top_p: float, min_p: float) -> list[Any]:
    ones = torch.ones(rows)
    counters = torch.randint(0, 2**60, (3, rows)).unbind()
    return [ones * temperature, (ones * top_k).int(), ones * top_p, ones * min_p, *counters]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "filters", [(0, 0, 1, 0), (1, 0, 1, 0), (0.8, 50, 1, 0), (1, 0, 0.9, 0), (0.7, 20, 0.8, 0.05)]
)
def test_tokens_are_those_of_sorting(
    filters: tuple[float, int, float, float], dtype: torch.dtype
) -> None:
    logits = (torch.randn(300, 151936) * 3).to(dtype)
    some = parameters(300, *filters)
    same = ops.sample_tokens(logits, *some) == reference.sample_tokens(logits, *some)
    # a number that falls into the rounding of a sum of 150,000 may choose the neighbour
    assert same.double().mean() >= (1.0 if filters[0] == 0 else 0.98)


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0]).repeat(200_000, 1)
    some = parameters(200_000, 1.0, 0, 1.0, 0.0)
    found = ops.sample_tokens(logits, *some).bincount(minlength=4) / 200_000
    torch.testing.assert_close(found, logits[0].softmax(0), rtol=0, atol=5e-3)


def test_penalties() -> None:
    logits = torch.randn(64, 151936)
    counts = torch.randint(0, 3, (70, 151936), dtype=torch.int32)
    rows, slots = torch.randperm(64)[:20], torch.randperm(70)[:20]
    tables = (rows, slots, counts, counts == 1)
    factors = (torch.rand(20) + 0.5, torch.rand(20), torch.rand(20))
    want, got = logits.clone(), logits.clone()
    reference.apply_penalties(want, *tables, *factors)
    ops.apply_penalties(got, *tables, *factors)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("quantized", [None, torch.int8, torch.float8_e4m3fn])
def test_blocks_of_all_layers(dtype: torch.dtype, quantized: torch.dtype | None) -> None:
    pool = (torch.randn(5, 2, 90, 16, 8, 128) * 3).to(dtype)
    ids = torch.randperm(90)[:33]
    want = reference.pack_blocks(pool, ids, quantized)
    got = ops.pack_blocks(pool, ids, quantized=quantized)
    if quantized is None:
        assert got.values.equal(want.values)
    else:
        assert got.scales is not None
        torch.testing.assert_close(got.scales, want.scales)
        unit = 1 if quantized is torch.int8 else 32
        assert (got.values.float() - want.values.float()).abs().max() <= unit
    back = torch.full_like(pool, torch.nan)
    ops.unpack_blocks(got, back, ids)
    torch.testing.assert_close(
        back[:, :, ids].float(), pool[:, :, ids].float(), rtol=0.07, atol=0.15
    )
    assert back[:, :, [n for n in range(90) if n not in ids.tolist()]].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("rows", [1, 16, 17, 64, 100])
@pytest.mark.parametrize(("columns", "depth"), [(4096, 12288), (24576, 4096), (777, 1003)])
def test_products(
    rows: int, columns: int, depth: int, kind: torch.dtype, dtype: torch.dtype
) -> None:
    x = torch.randn(rows, depth).to(dtype)
    weight, scales = ops.quantize_weight(torch.randn(columns, depth), kind)
    want = (x.double() @ weight.double().t()) * scales
    got = ops.quantized_linear(x, weight, scales)
    error = torch.linalg.vector_norm(got.double() - want) / torch.linalg.vector_norm(want)
    assert error < (1e-5 if dtype is FP32 else 5e-3)


def every_op() -> list[tuple[str, Callable[[], Any]]]:
    logits, some = torch.randn(8, 5000), parameters(8, 1.0, 20, 0.9, 0.1)
    counts = torch.ones(8, 5000, dtype=torch.int32)
    rows, factor = torch.arange(8), torch.ones(8)
    pool = torch.randn(2, 2, 20, 16, 4, 64).to(BF16)
    packed, ids = ops.pack_blocks(pool, rows, quantized=torch.int8), rows
    weight, scales = ops.quantize_weight(torch.randn(512, 1024), torch.int8)
    x = torch.randn(8, 1024).to(BF16)
    return [
        ("sample_tokens", lambda: ops.sample_tokens(logits, *some)),
        ("apply_penalties", lambda: ops.apply_penalties(
            logits, rows, rows, counts, counts > 1, factor, factor, factor)),
        ("pack_blocks", lambda: ops.pack_blocks(pool, ids, quantized=torch.int8)),
        ("unpack_blocks", lambda: ops.unpack_blocks(packed, pool, ids)),
        ("quantized_linear", lambda: ops.quantized_linear(x, weight, scales)),
    ]  # fmt: skip


def test_no_op_waits_for_the_device_and_all_can_be_captured() -> None:
    calls = every_op()
    for _, call in calls:  # compiled and loaded before the watch begins
        call()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _, call in calls:
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for _, call in calls:
        torch.cuda.synchronize()
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            call()
