"""Each kernel in Triton's interpreter against its twin; programs × iterations stay small.

The interpreter truncates where a GPU rounds a result to bf16, hence bf16's wider tolerance here.
"""

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from epidote_kernels import aot, ops, reference
from epidote_kernels.fakes import cumulative, paged_batch
from epidote_kernels.paged_decode_attention import paged_decode_attention

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
DTYPES = [FP32, FP16, BF16]
NAN = float("nan")


def assert_equal_enough(got: Tensor, want: Tensor) -> None:
    assert got.dtype is want.dtype
    tolerance = {FP32: 2e-6, FP16: 2e-3, BF16: 3e-2}[want.dtype]
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 31, 64, 65])
@pytest.mark.parametrize("rows", [0, 1, 40])
def test_norms(rows: int, size: int, dtype: torch.dtype) -> None:
    x, residual = torch.randn(rows, size).to(dtype), torch.randn(rows, size).to(dtype)
    weight = torch.randn(size).to(dtype)
    assert_equal_enough(ops.rms_norm(x, weight, 1e-6), reference.rms_norm(x, weight, 1e-6))
    got = ops.add_rms_norm(x, residual, weight, 1e-5)
    for one, other in zip(got, reference.add_rms_norm(x, residual, weight, 1e-5), strict=True):
        assert_equal_enough(one, other)


def test_norm_over_heads_of_a_wider_projection() -> None:
    heads, weight = torch.randn(5, 10, 24)[:, 2:9], torch.randn(24)
    got = ops.rms_norm(heads, weight, 1e-6)
    assert got.is_contiguous()
    assert_equal_enough(got, reference.rms_norm(heads, weight, 1e-6))


def test_norm_over_four_dimensions() -> None:
    x, weight = torch.randn(2, 3, 4, 8)[:, :, 1:], torch.randn(8)
    assert_equal_enough(ops.rms_norm(x, weight, 1e-6), reference.rms_norm(x, weight, 1e-6))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "size"), [(0, 8), (1, 1), (3, 77), (1, 1025)])
def test_activation(rows: int, size: int, dtype: torch.dtype) -> None:
    gate_up = torch.randn(rows, 2 * size).to(dtype)
    assert_equal_enough(ops.silu_mul(gate_up), reference.silu_mul(gate_up))


def test_activation_survives_large_gates() -> None:
    assert ops.silu_mul(torch.tensor([[-200.0, 200.0, 1.0, 1.0]])).tolist() == [[0.0, 200.0]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("tokens", "num_heads", "num_kv_heads", "dim"),
    [(0, 2, 1, 8), (1, 1, 1, 8), (5, 6, 2, 24), (2, 9, 3, 64), (2, 3, 1, 256)],
)
def test_rotation_and_writes(
    tokens: int, num_heads: int, num_kv_heads: int, dim: int, dtype: torch.dtype
) -> None:
    qkv = torch.randn(tokens, num_heads + 2 * num_kv_heads, dim).to(dtype)
    angles = torch.rand(tokens, dim // 2) * 6
    cos, sin = angles.cos(), angles.sin()
    slots = torch.randperm(3 * 16)[:tokens]
    slots[1::3] = -1
    caches = torch.zeros(2, 3, 2, 16, num_kv_heads, dim, dtype=dtype)  # two of two layers each
    results = []
    for backend, layers in zip((ops, reference), caches.unbind(), strict=True):
        q, k, v = qkv.clone().split((num_heads, num_kv_heads, num_kv_heads), 1)
        turned = backend.rope_kv_write(q, k, v, cos, sin, layers[:, 0], layers[:, 1], slots)
        results.append(turned)
    assert_equal_enough(*results)
    assert_equal_enough(*caches.unbind())


def decode_both(
    seq_lens: list[int],
    group: int,
    num_kv_heads: int,
    dim: int,
    block_size: int,
    dtype: torch.dtype,
    num_programs: int | None,
) -> None:
    q = torch.randn(len(seq_lens), group * num_kv_heads, dim).to(dtype)
    sizes = {"num_kv_heads": num_kv_heads, "dim": dim, "block_size": block_size, "dtype": dtype}
    state = torch.get_rng_state()
    clean = paged_batch(seq_lens, **sizes, elsewhere=0.0)
    torch.set_rng_state(state)
    poisoned = paged_batch(seq_lens, **sizes, elsewhere=NAN)
    want = reference.paged_decode_attention(
        q, clean.k_cache, clean.v_cache, clean.block_tables, clean.seq_lens, scale=dim**-0.5
    )
    paged = (poisoned.k_cache, poisoned.v_cache, poisoned.block_tables, poisoned.seq_lens)
    if num_programs is None:
        got = ops.paged_decode_attention(q, *paged, scale=dim**-0.5)
    else:
        got = paged_decode_attention(
            q, *paged, scale=dim**-0.5, num_programs=num_programs, min_tiles=1
        )
    assert_equal_enough(got, want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_programs", [None, 3])
@pytest.mark.parametrize(
    ("seq_lens", "group", "num_kv_heads", "dim", "block_size"),
    [
        ([], 1, 1, 8, 16),
        ([0], 2, 1, 8, 16),
        ([1, 15, 16, 17], 1, 1, 8, 16),
        ([63, 64, 65, 0], 3, 1, 40, 32),
        ([130, 1], 7, 1, 128, 64),
        ([20], 17, 1, 16, 16),
    ],
)
def test_decode(
    seq_lens: list[int],
    group: int,
    num_kv_heads: int,
    dim: int,
    block_size: int,
    num_programs: int | None,
    dtype: torch.dtype,
) -> None:
    decode_both(seq_lens, group, num_kv_heads, dim, block_size, dtype, num_programs)


@given(
    seq_lens=st.lists(st.integers(0, 150), min_size=1, max_size=2),
    group=st.integers(1, 5),
    num_kv_heads=st.integers(1, 2),
    dim=st.sampled_from([8, 16, 72]),
    block_size=st.sampled_from([16, 32, 64]),
    num_programs=st.sampled_from([1, 2, 5]),
)
@settings(max_examples=12)
def test_decode_of_any_size(
    seq_lens: list[int], group: int, num_kv_heads: int, dim: int, block_size: int, num_programs: int
) -> None:
    decode_both(seq_lens, group, num_kv_heads, dim, block_size, FP32, num_programs)


def prefill_both(
    pieces: list[tuple[int, int]], group: int, dim: int, block_size: int, dtype: torch.dtype
) -> None:
    """Each piece is (chunk, prefix); two rows of `q` belong to nobody."""
    num_kv_heads = 1
    chunks = [chunk for chunk, _ in pieces]
    seq_lens = [chunk + prefix if chunk else 0 for chunk, prefix in pieces]
    q = torch.randn(sum(chunks) + 2, group * num_kv_heads, dim).to(dtype)
    sizes = {"num_kv_heads": num_kv_heads, "dim": dim, "block_size": block_size, "dtype": dtype}
    batch = paged_batch(seq_lens, **sizes, elsewhere=NAN)
    paged = (q, batch.k_cache, batch.v_cache, batch.block_tables, cumulative(chunks))
    sized = {"scale": dim**-0.5, "max_q_len": max(chunks, default=0)}
    # the twin never gathers past an end here, since it takes one sequence at a time
    want = reference.paged_prefill_attention(*paged, batch.seq_lens, **sized)
    got = ops.paged_prefill_attention(*paged, batch.seq_lens, **sized)
    assert_equal_enough(got, want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("pieces", "group", "dim", "block_size"),
    [
        ([], 1, 8, 16),
        ([(1, 0), (1, 16), (0, 3)], 2, 8, 16),
        ([(17, 0), (15, 33)], 1, 40, 16),
        ([(64, 1)], 1, 16, 32),
        ([(33, 31), (2, 62)], 3, 128, 64),
    ],
)
def test_prefill(
    pieces: list[tuple[int, int]], group: int, dim: int, block_size: int, dtype: torch.dtype
) -> None:
    prefill_both(pieces, group, dim, block_size, dtype)


@given(
    pieces=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 70)), min_size=1, max_size=2),
    group=st.integers(1, 2),
    dim=st.sampled_from([8, 24]),
    block_size=st.sampled_from([16, 64]),
)
@settings(max_examples=12)
def test_prefill_of_any_size(
    pieces: list[tuple[int, int]], group: int, dim: int, block_size: int
) -> None:
    prefill_both(pieces, group, dim, block_size, FP32)


def test_rows_of_an_empty_sequence_are_zeros() -> None:
    batch = paged_batch([5, 0], num_kv_heads=1, dim=8)
    q = torch.randn(8, 2, 8)
    got = ops.paged_prefill_attention(
        q, batch.k_cache, batch.v_cache, batch.block_tables, cumulative([5, 3]), batch.seq_lens,
        scale=1.0, max_q_len=5,
    )  # fmt: skip
    assert got[:5].any()
    assert not got[5:].any()


def vision_both(lengths: list[int], num_heads: int, dim: int, dtype: torch.dtype) -> None:
    qkv = torch.randn(sum(lengths) + 2, 3, num_heads, dim).to(dtype)
    bounds = cumulative(lengths)
    sized = {"scale": dim**-0.5, "max_seqlen": max(lengths, default=0)}
    want = reference.vision_attention(*qkv.unbind(1), bounds, **sized)
    assert_equal_enough(ops.vision_attention(*qkv.unbind(1), bounds, **sized), want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("lengths", "num_heads", "dim"),
    [([], 1, 8), ([1, 0, 4, 4], 2, 8), ([31, 32, 33], 1, 80), ([130], 1, 72)],
)
def test_pictures(lengths: list[int], num_heads: int, dim: int, dtype: torch.dtype) -> None:
    vision_both(lengths, num_heads, dim, dtype)


@given(
    lengths=st.lists(st.integers(0, 50), min_size=1, max_size=3),
    num_heads=st.integers(1, 2),
    dim=st.sampled_from([8, 24]),
)
@settings(max_examples=12)
def test_pictures_of_any_size(lengths: list[int], num_heads: int, dim: int) -> None:
    vision_both(lengths, num_heads, dim, FP32)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int8])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_blocks(count: int, dtype: torch.dtype) -> None:
    layers = (torch.randn(2, 6, 16, 2, 40) * 50).to(dtype)
    ids = torch.randperm(6)
    here, there = ids[:count], ids[3 : 3 + count].int()
    packed = ops.gather_blocks(layers[0], here)
    assert torch.equal(packed, layers[0, here])
    want, got = layers.clone(), layers.clone()
    reference.scatter_blocks(want[1], here, packed)
    ops.scatter_blocks(got[1], here, packed)
    assert torch.equal(got, want)
    reference.copy_blocks(want[1], want[1], here, there.long())
    ops.copy_blocks(got[1], got[1], here.int(), there)
    assert torch.equal(got, want)


@pytest.mark.parametrize(
    ("block_size", "dim", "words"),
    [
        (8, 8, "k_cache: block size must be 16, 32 or 64, got 8"),
        (48, 8, "k_cache: block size must be 16, 32 or 64, got 48"),
        (16, 12, "head_dim: must be a multiple of 8 up to 256, got 12"),
        (16, 264, "head_dim: must be a multiple of 8 up to 256, got 264"),
    ],
)
def test_sizes_without_a_tile_are_refused(block_size: int, dim: int, words: str) -> None:
    batch = paged_batch([3], num_kv_heads=1, dim=dim, block_size=block_size)
    with pytest.raises(ValueError, match=words):
        ops.paged_decode_attention(torch.zeros(1, 1, dim), *vars(batch).values(), scale=1.0)


def test_strides_without_a_kernel_are_refused() -> None:
    with pytest.raises(ValueError, match="gate_up: must be contiguous"):
        ops.silu_mul(torch.zeros(4, 8).t())
    with pytest.raises(ValueError, match="residual: must be contiguous"):
        ops.add_rms_norm(torch.zeros(4, 4), torch.zeros(4, 4).t(), torch.ones(4), 1e-6)
    q = torch.zeros(4, 8, 2).transpose(1, 2)
    with pytest.raises(ValueError, match="q: last dimension must have stride 1"):
        ops.vision_attention(q, q, q, cumulative([4]), scale=1.0, max_seqlen=4)


def test_threads_take_turns_in_the_interpreter() -> None:
    x, weight = torch.randn(3, 16), torch.ones(16)
    want = reference.rms_norm(x, weight, 1e-6)
    results: list[Tensor] = []

    def work() -> None:
        results.extend(ops.rms_norm(x, weight, 1e-6) for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 40
    for got in results:
        assert_equal_enough(got, want)


def test_interpreting_process_refuses_to_compile() -> None:
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET: is 1, unset it to compile"):
        aot.build(next(aot.forms("bf16")), "bf16")
