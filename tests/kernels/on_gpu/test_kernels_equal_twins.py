"""Every kernel against its twin on a CUDA device, at sizes of real models.

The twin runs in fp32 on the same numbers, so that the kernel's own rounding is what is measured.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from epidote_kernels import ops, reference
from epidote_kernels.fakes import cumulative, paged_batch

pytestmark = pytest.mark.gpu

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
DTYPES = [BF16, FP16, FP32]


def assert_close(got: Tensor, want: Tensor, dtype: torch.dtype) -> None:
    """`want` is fp32 or already rounded; a few units in the last place of `dtype` are allowed."""
    assert got.dtype is dtype
    tolerance = {FP32: 1e-5, FP16: 3e-3, BF16: 2e-2}[dtype]
    torch.testing.assert_close(got.float(), want.float(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "size"), [(1, 576), (33, 2048), (257, 3584), (64, 8192), (5, 7)])
def test_norms(rows: int, size: int, dtype: torch.dtype) -> None:
    x, residual = torch.randn(rows, size).to(dtype), torch.randn(rows, size).to(dtype)
    weight = torch.randn(size).to(dtype)
    assert_close(ops.rms_norm(x, weight, 1e-6), reference.rms_norm(x, weight, 1e-6), dtype)
    normed, total = ops.add_rms_norm(x, residual, weight, 1e-6)
    assert torch.equal(total, x + residual)
    assert_close(normed, reference.rms_norm(total, weight, 1e-6), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_over_heads_of_a_wider_projection(dtype: torch.dtype) -> None:
    heads = torch.randn(129, 48, 128).to(dtype)[:, :32]
    weight = torch.randn(128).to(dtype)
    assert_close(ops.rms_norm(heads, weight, 1e-6), reference.rms_norm(heads, weight, 1e-6), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "size"), [(1, 1536), (65, 9728), (3, 77)])
def test_activation(rows: int, size: int, dtype: torch.dtype) -> None:
    gate_up = torch.randn(rows, 2 * size).to(dtype)
    assert_close(ops.silu_mul(gate_up), reference.silu_mul(gate_up), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("num_heads", "num_kv_heads", "dim"), [(9, 3, 64), (28, 4, 128), (8, 4, 256)]
)
def test_rotation_and_writes(
    num_heads: int, num_kv_heads: int, dim: int, dtype: torch.dtype
) -> None:
    tokens = 301
    qkv = torch.randn(tokens, num_heads + 2 * num_kv_heads, dim).to(dtype)
    angles = torch.rand(tokens, dim // 2) * 6
    cos, sin = angles.cos(), angles.sin()
    slots = torch.randperm(64 * 16)[:tokens]
    slots[::7] = -1
    caches = torch.zeros(2, 64, 2, 16, num_kv_heads, dim, dtype=dtype)
    turned = []
    for backend, layers in zip((ops, reference), caches.unbind(), strict=True):
        q, k, v = qkv.clone().split((num_heads, num_kv_heads, num_kv_heads), 1)
        turned.append(backend.rope_kv_write(q, k, v, cos, sin, layers[:, 0], layers[:, 1], slots))
    assert_close(turned[0], turned[1], dtype)
    assert_close(caches[0], caches[1], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("seq_lens", "num_heads", "num_kv_heads", "dim", "block_size"),
    [
        ([1, 15, 16, 17, 0, 1000], 9, 3, 64, 16),
        ([4097], 28, 4, 128, 16),
        ([300] * 64, 16, 8, 128, 32),
        ([2000, 31, 64], 8, 4, 256, 64),
        ([513, 5], 16, 16, 80, 16),
    ],
)
def test_decode(
    seq_lens: list[int],
    num_heads: int,
    num_kv_heads: int,
    dim: int,
    block_size: int,
    dtype: torch.dtype,
) -> None:
    sizes = {"num_kv_heads": num_kv_heads, "dim": dim, "block_size": block_size, "dtype": dtype}
    batch = paged_batch(seq_lens, **sizes, device="cuda", elsewhere=0.0)
    q = torch.randn(len(seq_lens), num_heads, dim).to(dtype)
    tables = (batch.block_tables, batch.seq_lens)
    want = reference.paged_decode_attention(
        q.float(), batch.k_cache.float(), batch.v_cache.float(), *tables, scale=dim**-0.5
    )
    got = ops.paged_decode_attention(q, batch.k_cache, batch.v_cache, *tables, scale=dim**-0.5)
    assert_close(got, want, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("pieces", "num_heads", "num_kv_heads", "dim", "block_size"),
    [
        ([(1, 0), (16, 100), (0, 5), (129, 0)], 9, 3, 64, 16),
        ([(512, 1500), (37, 0)], 28, 4, 128, 16),
        ([(2048, 0)], 16, 8, 128, 32),
        ([(300, 77)], 8, 4, 256, 64),
    ],
)
def test_prefill(
    pieces: list[tuple[int, int]],
    num_heads: int,
    num_kv_heads: int,
    dim: int,
    block_size: int,
    dtype: torch.dtype,
) -> None:
    chunks = [chunk for chunk, _ in pieces]
    seq_lens = [chunk + prefix if chunk else 0 for chunk, prefix in pieces]
    sizes = {"num_kv_heads": num_kv_heads, "dim": dim, "block_size": block_size, "dtype": dtype}
    batch = paged_batch(seq_lens, **sizes, device="cuda")
    q = torch.randn(sum(chunks) + 3, num_heads, dim).to(dtype)
    tables = (batch.block_tables, cumulative(chunks, "cuda"), batch.seq_lens)
    sized = {"scale": dim**-0.5, "max_q_len": max(chunks)}
    want = reference.paged_prefill_attention(
        q.float(), batch.k_cache.float(), batch.v_cache.float(), *tables, **sized
    )
    got = ops.paged_prefill_attention(q, batch.k_cache, batch.v_cache, *tables, **sized)
    assert_close(got, want, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("lengths", "num_heads", "dim"),
    [([64] * 40 + [16, 8], 16, 80), ([1024, 3, 777], 16, 72), ([2500], 12, 64), ([1, 129], 4, 128)],
)
def test_pictures(lengths: list[int], num_heads: int, dim: int, dtype: torch.dtype) -> None:
    q, k, v = torch.randn(sum(lengths) + 3, 3, num_heads, dim).to(dtype).unbind(1)
    sized = {"scale": dim**-0.5, "max_seqlen": max(lengths)}
    bounds = cumulative(lengths, "cuda")
    want = reference.vision_attention(q.float(), k.float(), v.float(), bounds, **sized)
    assert_close(ops.vision_attention(q, k, v, bounds, **sized), want, dtype)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int8])
def test_blocks(dtype: torch.dtype) -> None:
    layers = (torch.randn(2, 60, 16, 4, 128) * 50).to(dtype)
    ids = torch.randperm(60)
    packed = ops.gather_blocks(layers[0], ids[:20])
    assert torch.equal(packed, layers[0, ids[:20]])
    want, got = layers.clone(), layers.clone()
    reference.scatter_blocks(want[1], ids[:20], packed)
    ops.scatter_blocks(got[1], ids[:20], packed)
    reference.copy_blocks(want[1], want[1], ids[:20], ids[30:50])
    ops.copy_blocks(got[1], got[1], ids[:20].int(), ids[30:50].int())
    assert torch.equal(got, want)


def every_op() -> list[tuple[str, Callable[[], Any]]]:
    """One call of each op at a decode step's or a chunk's size; `rope_kv_write` turns q again."""
    tokens, num_heads, num_kv_heads, dim = 8, 16, 4, 128
    batch = paged_batch([700, 31, 16, 0, 5, 64, 65, 1], num_kv_heads=4, dim=dim, dtype=BF16,
                        device="cuda")  # fmt: skip
    caches = (batch.k_cache, batch.v_cache)
    x, weight = torch.randn(tokens, 2048).to(BF16), torch.ones(2048).to(BF16)
    qkv = torch.randn(tokens, num_heads + 2 * num_kv_heads, dim).to(BF16)
    q, k, v = qkv.split((num_heads, num_kv_heads, num_kv_heads), 1)
    cos, sin = torch.rand(tokens, 64), torch.rand(tokens, 64)
    slots = torch.arange(tokens) - 1
    ids, bounds = torch.tensor([1, 2]), cumulative([8, 0], "cuda")
    one = (batch.block_tables[:1], cumulative([8], "cuda"), batch.seq_lens[:1])
    table = ops.rope_table(torch.rand(64), 100)
    positions = torch.zeros(3, tokens, dtype=torch.int64)
    return [
        ("rms_norm", lambda: ops.rms_norm(x, weight, 1e-6)),
        ("add_rms_norm", lambda: ops.add_rms_norm(x, x, weight, 1e-6)),
        ("silu_mul", lambda: ops.silu_mul(x)),
        ("rope_cos_sin", lambda: ops.rope_cos_sin(table, positions[0])),
        ("mrope_cos_sin", lambda: ops.mrope_cos_sin(table, positions, (24, 20, 20), True)),
        ("rope_kv_write", lambda: ops.rope_kv_write(q, k, v, cos, sin, *caches, slots)),
        ("paged_decode_attention", lambda: ops.paged_decode_attention(
            q, *caches, batch.block_tables, batch.seq_lens, scale=0.1)),
        ("paged_prefill_attention", lambda: ops.paged_prefill_attention(
            q, *caches, *one, scale=0.1, max_q_len=8)),
        ("vision_attention", lambda: ops.vision_attention(
            q, q, q, bounds, scale=0.1, max_seqlen=8)),
        ("gather_blocks", lambda: ops.gather_blocks(caches[0], ids)),
        ("scatter_blocks", lambda: ops.scatter_blocks(caches[0], ids, caches[1][:2])),
        ("copy_blocks", lambda: ops.copy_blocks(caches[0], caches[1], ids, ids)),
    ]  # fmt: skip


def test_no_op_waits_for_the_device() -> None:
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


def test_every_op_can_be_captured_and_replayed() -> None:
    for name, call in every_op():
        if name == "rope_kv_write":  # in place: a replay turns further
            continue
        want = call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            got = call()
        for out in got if isinstance(got, tuple) else (got,):
            if out is not None:
                out.zero_()
        graph.replay()
        torch.cuda.synchronize()
        if want is not None:
            torch.testing.assert_close(got, want, rtol=0, atol=0, msg=name)


def test_a_captured_decode_follows_lengths_that_change() -> None:
    batch = paged_batch([900, 40], num_kv_heads=2, dim=64, dtype=BF16, device="cuda")
    q = torch.randn(2, 8, 64).to(BF16)
    paged = (q, batch.k_cache, batch.v_cache, batch.block_tables)
    ops.paged_decode_attention(*paged, batch.seq_lens, scale=0.125)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = ops.paged_decode_attention(*paged, batch.seq_lens, scale=0.125)
    batch.seq_lens.copy_(torch.tensor([500, 0]))
    graph.replay()
    want = ops.paged_decode_attention(*paged, batch.seq_lens, scale=0.125)
    assert torch.equal(got, want)
    assert not got[1].any()
