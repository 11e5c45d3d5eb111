"""Scores of cached keys in the interpreter, against the twins and against whole attention."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epidote_kernels import ops, reference
from epidote_kernels.attention_scores import attention_column_sums
from epidote_kernels.fakes import cumulative, paged_batch
from epidote_kernels.reference.kv_codes import encoded, head_scales

NAN = float("nan")


def both(
    pieces: list[tuple[int, int]],
    dtype: torch.dtype = torch.float32,
    num_splits: int | None = None,
    code: torch.dtype | None = None,
) -> None:
    """Each piece is (window, keys before it); scores of both are added to the same random ones."""
    windows = [window for window, _ in pieces]
    lens = [window + before for window, before in pieces]
    batch = paged_batch(lens, num_kv_heads=2, dim=24, dtype=dtype, elsewhere=0.0 if code else NAN)
    k_cache, k_scale = batch.k_cache, None
    if code is not None:
        k_scale = head_scales(k_cache, code)
        k_cache = encoded(k_cache, k_scale, code)
    q = torch.randn(sum(windows), 6, 24).to(dtype)
    size = max(lens, default=0) + 3
    before = torch.rand(len(pieces), 2, size)
    want, got = before.clone(), before.clone()
    call = (q, k_cache, batch.block_tables, cumulative(windows), batch.seq_lens)
    sized = {"scale": 0.2, "max_q_len": max(windows, default=0), "k_scale": k_scale}
    reference.attention_column_sums(*call, want, **sized)
    if num_splits is None:
        ops.attention_column_sums(*call, **sized, max_seq_len=size, into=got)
    else:
        attention_column_sums(*call, got, **sized, num_splits=num_splits)
    torch.testing.assert_close(got, want, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "pieces", [[], [(1, 0)], [(0, 5), (16, 17)], [(33, 70), (1, 64)], [(70, 0)]]
)
def test_column_sums(pieces: list[tuple[int, int]], dtype: torch.dtype) -> None:
    both(pieces, dtype)


@pytest.mark.parametrize("code", [torch.int8, torch.float8_e4m3fn])
def test_column_sums_of_codes(code: torch.dtype) -> None:
    both([(5, 40), (3, 0)], code=code)


@given(
    pieces=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 90)), min_size=1, max_size=2),
    num_splits=st.integers(1, 5),
)
@settings(max_examples=10)
def test_any_windows_over_any_splits(pieces: list[tuple[int, int]], num_splits: int) -> None:
    both(pieces, num_splits=num_splits)


def test_every_query_gives_one_share_to_what_it_sees() -> None:
    batch = paged_batch([20, 37], num_kv_heads=2, dim=8, elsewhere=NAN)
    q = torch.randn(4 + 9, 4, 8)
    sums = ops.attention_column_sums(
        q, batch.k_cache, batch.block_tables, cumulative([4, 9]), batch.seq_lens,
        scale=0.3, max_q_len=9, max_seq_len=40,
    )  # fmt: skip
    torch.testing.assert_close(sums.sum(2), torch.tensor([[4.0, 4.0], [9.0, 9.0]]))
    assert not sums[0, :, 20:].any()


def test_steps_add_up_to_the_window_over_them() -> None:
    """H2O's running sums: one query at a time gives what all of them give at once."""
    batch = paged_batch([19], num_kv_heads=1, dim=8)
    q = torch.randn(3, 2, 8)
    keywords = {"scale": 0.4, "max_seq_len": 19}
    at_once = ops.attention_column_sums(
        q, batch.k_cache, batch.block_tables, cumulative([3]), batch.seq_lens,
        max_q_len=3, **keywords,
    )  # fmt: skip
    running = torch.zeros(1, 1, 19)
    for step in range(3):
        lens = batch.seq_lens - 2 + step
        ops.attention_column_sums(
            q[step : step + 1], batch.k_cache, batch.block_tables, cumulative([1]), lens,
            max_q_len=1, into=running, **keywords,
        )  # fmt: skip
    torch.testing.assert_close(running, at_once)


def test_heads_of_different_lengths_are_scored_over_their_own_keys() -> None:
    batch = paged_batch([40, 17], num_kv_heads=2, dim=8)
    lens = torch.tensor([[40, 9], [3, 17]], dtype=torch.int32)
    call = (torch.randn(5, 4, 8), batch.k_cache, batch.block_tables, cumulative([2, 3]), lens)
    sized = {"scale": 0.3, "max_q_len": 3}
    want = torch.zeros(2, 2, 41)
    reference.attention_column_sums(*call, want, **sized)
    got = ops.attention_column_sums(*call, **sized, max_seq_len=41)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("width", [1, 5, 7])
@pytest.mark.parametrize("size", [1, 6, 1030])
def test_pooling(size: int, width: int, largest: bool) -> None:
    scores = torch.rand(2, 3, size)
    scores[0, :, size // 2 :] = NAN  # past the first sequence's end
    lens = torch.tensor([size // 2, size], dtype=torch.int32)
    got = ops.pool_scores(scores, lens, width, largest=largest)
    want = reference.pool_scores(scores, lens, width, largest=largest)
    torch.testing.assert_close(got, want)
    assert not got[0, :, size // 2 :].any()
