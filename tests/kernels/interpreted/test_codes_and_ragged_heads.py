"""Caches of one-byte codes and caches whose heads differ in length, against the twins."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from epidote_kernels import ops, reference
from epidote_kernels.fakes import cumulative, paged_batch
from epidote_kernels.paged_decode_attention import paged_decode_attention
from epidote_kernels.reference.kv_codes import decoded, encoded, head_scales

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
INT8, FP8 = torch.int8, torch.float8_e4m3fn
NO_BLOCK = 2**30


def assert_equal_enough(got: Tensor, want: Tensor) -> None:
    assert got.dtype is want.dtype
    tolerance = {FP32: 1e-5, FP16: 3e-3, BF16: 3e-2}[want.dtype]
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


def head_by_head(
    lengths: list[list[int]], dim: int, block_size: int, *, own_blocks: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Caches, tables [S, K, MB] and lengths [S, K]; unused slots hold NaN.

    own_blocks  whether a block is one head's alone
    """
    num_heads = len(lengths[0])
    most = max((n for row in lengths for n in row), default=0)
    per_head = -(-most // block_size) + 1
    num_blocks = len(lengths) * num_heads * per_head + 1
    cache_heads = 1 if own_blocks else num_heads
    k_cache, v_cache = torch.full(
        (2, num_blocks, block_size, cache_heads, dim), float("nan"), dtype=dtype
    ).unbind()
    tables = torch.full((len(lengths), num_heads, per_head), NO_BLOCK, dtype=torch.int32)
    order = iter(torch.randperm(num_blocks).tolist())
    for row, of_row in enumerate(lengths):
        for head, length in enumerate(of_row):
            for index in range(-(-length // block_size)):
                block = tables[row, head, index] = next(order)
                live = min(block_size, length - index * block_size)
                inside = 0 if own_blocks else head
                for cache in (k_cache, v_cache):
                    cache[block, :live, inside] = torch.randn(live, dim).to(dtype)
    return k_cache, v_cache, tables, torch.tensor(lengths, dtype=torch.int32)


@pytest.mark.parametrize("code", [INT8, FP8])
@pytest.mark.parametrize("dtype", [FP32, FP16, BF16])
@pytest.mark.parametrize("num_programs", [None, 4])
def test_decode_of_codes(num_programs: int | None, dtype: torch.dtype, code: torch.dtype) -> None:
    batch = paged_batch([1, 0, 33, 130], num_kv_heads=2, dim=24, dtype=FP32, elsewhere=0.0)
    k_scale, v_scale = head_scales(batch.k_cache, code), head_scales(batch.v_cache, code)
    k_cache = encoded(batch.k_cache, k_scale, code)
    v_cache = encoded(batch.v_cache, v_scale, code)
    q = torch.randn(4, 6, 24).to(dtype)
    paged = (q, k_cache, v_cache, batch.block_tables, batch.seq_lens)
    scaled = {"scale": 0.2, "k_scale": k_scale, "v_scale": v_scale}
    want = reference.paged_decode_attention(*paged, **scaled)
    if num_programs is None:
        got = ops.paged_decode_attention(*paged, **scaled)
    else:
        got = paged_decode_attention(*paged, **scaled, num_programs=num_programs, min_tiles=1)
    assert_equal_enough(got, want)
    # codes lose little: the same attention over the numbers before
    exact = reference.paged_decode_attention(
        q.float(), batch.k_cache, batch.v_cache, batch.block_tables, batch.seq_lens, scale=0.2
    )
    error = (got.float() - exact).norm() / exact.norm()
    assert error < (0.02 if code is INT8 else 0.06)


@given(
    lengths=st.lists(st.tuples(st.integers(0, 70), st.integers(0, 40)), min_size=1, max_size=3),
    own_blocks=st.booleans(),
    num_programs=st.integers(1, 5),
    block_size=st.sampled_from([16, 32, 64]),
)
@settings(max_examples=12)
def test_decode_of_heads_of_different_lengths(
    lengths: list[tuple[int, int]], own_blocks: bool, num_programs: int, block_size: int
) -> None:
    ragged = head_by_head(
        [list(row) for row in lengths], 16, block_size, own_blocks=own_blocks, dtype=FP32
    )
    q = torch.randn(len(lengths), 6, 16)
    want = reference.paged_decode_attention(q, *ragged, scale=0.25)
    got = paged_decode_attention(q, *ragged, scale=0.25, num_programs=num_programs, min_tiles=1)
    assert_equal_enough(got, want)


def test_decode_of_lengths_per_head_in_a_shared_table() -> None:
    batch = paged_batch([40, 17], num_kv_heads=2, dim=8)
    lens = torch.tensor([[40, 3], [0, 17]], dtype=torch.int32)
    q = torch.randn(2, 2, 8)
    paged = (q, batch.k_cache, batch.v_cache, batch.block_tables, lens)
    got = ops.paged_decode_attention(*paged, scale=0.3)
    assert_equal_enough(got, reference.paged_decode_attention(*paged, scale=0.3))
    assert not got[1, 0].any()


@pytest.mark.parametrize("code", [None, INT8, FP8])
@pytest.mark.parametrize("spans", [False, True])
def test_prefill_of_codes_and_pictures(spans: bool, code: torch.dtype | None) -> None:
    chunks, prefixes = [21, 5], [40, 0]
    lens = [c + p for c, p in zip(chunks, prefixes, strict=True)]
    batch = paged_batch(lens, num_kv_heads=2, dim=16, elsewhere=0.0)
    scaled: dict[str, Tensor] = {}
    k_cache, v_cache = batch.k_cache, batch.v_cache
    if code is not None:
        k_scale, v_scale = head_scales(k_cache, code), head_scales(v_cache, code)
        k_cache, v_cache = encoded(k_cache, k_scale, code), encoded(v_cache, v_scale, code)
        scaled = {"k_scale": k_scale, "v_scale": v_scale}
    ends = torch.zeros(sum(chunks), dtype=torch.int32)
    ends[2:19] = 40 + 19  # a picture inside the first chunk, over several tiles of 16 rows
    ends[21:26] = 5
    call = {
        "q": torch.randn(sum(chunks), 4, 16),
        "k_cache": k_cache,
        "v_cache": v_cache,
        "block_tables": batch.block_tables,
        "cu_q_lens": cumulative(chunks),
        "seq_lens": batch.seq_lens,
        "scale": 0.25,
        "max_q_len": 21,
        "span_ends": ends if spans else None,
        **scaled,
    }
    assert_equal_enough(
        ops.paged_prefill_attention(**call), reference.paged_prefill_attention(**call)
    )


def test_prefill_after_compression_has_its_own_prefix_in_every_head() -> None:
    ragged = head_by_head([[50, 20], [9, 12]], 8, 16, own_blocks=True, dtype=FP32)
    k_cache, v_cache, tables, lens = ragged
    q = torch.randn(12, 4, 8)
    call = (q, k_cache, v_cache, tables, cumulative([3, 9]), lens)
    want = reference.paged_prefill_attention(*call, scale=0.3, max_q_len=9)
    assert_equal_enough(ops.paged_prefill_attention(*call, scale=0.3, max_q_len=9), want)


@pytest.mark.parametrize("code", [INT8, FP8])
@pytest.mark.parametrize("dtype", [FP32, FP16])
@pytest.mark.parametrize("norm", [False, True])
def test_rotation_files_codes(norm: bool, dtype: torch.dtype, code: torch.dtype) -> None:
    tokens, dim = 7, 24
    k_cache, v_cache = torch.zeros(2, 2, 16, 2, dim, dtype=code).unbind()
    k_scale, v_scale = torch.rand(2, 2).add(0.01).unbind()
    angles = torch.rand(tokens, dim // 2) * 6
    slots = torch.randperm(32)[:tokens]
    slots[3] = -1
    more: dict[str, Tensor | float] = {"k_scale": k_scale, "v_scale": v_scale}
    if norm:
        more |= {
            "q_norm": torch.randn(dim).to(dtype),
            "k_norm": torch.randn(dim).to(dtype),
            "eps": 1e-6,
        }
    filed = []
    qkv = (torch.randn(tokens, 7, dim) * 3).to(dtype)
    for backend in (ops, reference):
        caches = k_cache.clone(), v_cache.clone()
        q, k, v = qkv.clone().split((3, 2, 2), 1)
        turned = backend.rope_kv_write(q, k, v, angles.cos(), angles.sin(), *caches, slots, **more)
        filed.append((turned, *caches))
    (got_q, got_k, got_v), (want_q, want_k, want_v) = filed
    assert_equal_enough(got_q, want_q)
    # what lies between two codes may fall to either side: a key that differs in its last place, a
    # value where the interpreter's own cast to e4m3 rounds a tie another way
    for got, want, scale in ((got_k, want_k, k_scale), (got_v, want_v, v_scale)):
        apart = decoded(got, scale, FP32) != decoded(want, scale, FP32)
        assert apart.float().mean() < 0.02
    assert code is FP8 or torch.equal(got_v, want_v)


def test_largest_numbers_are_clamped_not_wrapped() -> None:
    for code, largest in ((INT8, 127.0), (FP8, 448.0)):
        k_cache, v_cache = torch.zeros(2, 1, 16, 1, 8, dtype=code).unbind()
        one = torch.ones(1)
        q, k, v = torch.full((1, 3, 8), -1e4).split((1, 1, 1), 1)
        ops.rope_kv_write(
            q, k, v, torch.ones(1, 4), torch.zeros(1, 4), k_cache, v_cache, torch.tensor([2]),
            k_scale=one, v_scale=one,
        )  # fmt: skip
        assert v_cache[0, 2].float().unique().tolist() == [-largest]
        assert k_cache[0, 2].float().unique().tolist() == [-largest]


def test_keys_that_are_no_numbers_stay_so_in_fp8() -> None:
    """Or a request whose keys overflowed would go on, with others' attention to what it said."""
    nan, inf = float("nan"), float("inf")
    k_cache, v_cache = torch.zeros(2, 1, 16, 1, 8, dtype=FP8).unbind()
    q, k, v = (
        torch.tensor([1.0, nan, inf]).view(3, 1, 1).expand(3, 3, 8).clone().split((1, 1, 1), 1)
    )
    one, slots = torch.ones(1), torch.tensor([0, 1, 2])
    ops.rope_kv_write(
        q, k, v, torch.ones(3, 4), torch.zeros(3, 4), k_cache, v_cache, slots,
        k_scale=one, v_scale=one,
    )  # fmt: skip
    assert k_cache[0, 0].float().eq(1).all()
    assert k_cache[0, 1].float().isnan().all()
    assert v_cache[0, 1].float().isnan().all()
    assert v_cache[0, 2].float().eq(448).all()  # infinity is clamped, as the twin does


@pytest.mark.parametrize("own_blocks", [False, True])
def test_every_head_files_at_its_own_slot(own_blocks: bool) -> None:
    tokens, heads, dim = 3, 2, 8
    slots = torch.randperm(64)[: tokens * heads].view(tokens, heads)
    slots[1, 0] = -1
    k, v = torch.randn(2, tokens, heads, dim).unbind()
    caches = torch.zeros(2, 2, 4, 16, 1 if own_blocks else heads, dim)
    for backend, pair in zip((ops, reference), caches.unbind(), strict=True):
        backend.rope_kv_write(
            torch.randn(tokens, 2, dim), k.clone(), v, torch.ones(tokens, 4),
            torch.zeros(tokens, 4), pair[0], pair[1], slots,
        )  # fmt: skip
    assert_equal_enough(*caches.unbind())
    filed = caches[0, 1].view(64, -1, dim)
    assert torch.equal(filed[slots[2, 1], 0 if own_blocks else 1], v[2, 1])
    assert int((filed != 0).any(-1).sum()) == 5
