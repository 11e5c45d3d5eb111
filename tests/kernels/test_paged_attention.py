"""The attention twins against a loop over heads and rows in float64, and against transformers."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.modeling_llama import eager_attention_forward

from epidote_kernels import ops
from epidote_kernels.fakes import PagedBatch, cumulative, paged_batch

BLOCK = 16
EDGES = [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 37]


def contents(batch: PagedBatch, row: int) -> tuple[Tensor, Tensor]:
    """Keys and values of one sequence, [length, K, D], found slot by slot."""
    length = int(batch.seq_lens[row])
    size = batch.k_cache.shape[1]
    blocks = [int(batch.block_tables[row, place // size]) for place in range(length)]
    keys = [batch.k_cache[block, place % size] for place, block in enumerate(blocks)]
    values = [batch.v_cache[block, place % size] for place, block in enumerate(blocks)]
    return torch.stack(keys), torch.stack(values)


def attended(q: Tensor, keys: Tensor, values: Tensor, scale: float, causal: bool) -> Tensor:
    """[n, H, D] queries, the last n of the sequence if `causal`, in float64."""
    out = torch.empty_like(q, dtype=torch.float64)
    group = q.shape[1] // keys.shape[1]
    for head in range(q.shape[1]):
        for row in range(q.shape[0]):
            seen = len(keys) - len(q) + row + 1 if causal else len(keys)
            head_keys = keys[:seen, head // group].double()
            weights = torch.softmax(head_keys @ q[row, head].double() * scale, 0)
            out[row, head] = weights @ values[:seen, head // group].double()
    return out


@given(
    seq_lens=st.lists(st.sampled_from([0, *EDGES]), min_size=0, max_size=5),
    num_kv_heads=st.integers(1, 3),
    group=st.integers(1, 4),
    dim=st.sampled_from([8, 24, 32]),
)
@settings(max_examples=40)
def test_decode_equals_a_loop_over_tokens(
    seq_lens: list[int], num_kv_heads: int, group: int, dim: int
) -> None:
    batch = paged_batch(seq_lens, num_kv_heads=num_kv_heads, dim=dim)
    q = torch.randn(len(seq_lens), group * num_kv_heads, dim)
    got = ops.paged_decode_attention(
        q, batch.k_cache, batch.v_cache, batch.block_tables, batch.seq_lens, scale=dim**-0.5
    )
    assert got.shape == q.shape
    assert got.is_contiguous()
    for row, length in enumerate(seq_lens):
        if length == 0:
            assert not got[row].any()
            continue
        want = attended(q[row : row + 1], *contents(batch, row), dim**-0.5, causal=True)
        torch.testing.assert_close(got[row : row + 1].double(), want, rtol=1e-5, atol=2e-6)


@given(
    pieces=st.lists(
        st.tuples(st.sampled_from([0, 1, 2, 17, 33]), st.sampled_from([0, *EDGES])),
        min_size=0,
        max_size=4,
    ),
    group=st.integers(1, 3),
    spare_rows=st.integers(0, 2),
)
@settings(max_examples=40)
def test_prefill_equals_a_loop_over_rows(
    pieces: list[tuple[int, int]], group: int, spare_rows: int
) -> None:
    """Each piece is (chunk, prefix)."""
    num_kv_heads, dim = 2, 16
    chunks = [chunk for chunk, _ in pieces]
    seq_lens = [chunk + prefix if chunk else 0 for chunk, prefix in pieces]
    batch = paged_batch(seq_lens, num_kv_heads=num_kv_heads, dim=dim)
    q = torch.randn(sum(chunks) + spare_rows, group * num_kv_heads, dim)
    bounds = cumulative(chunks)
    got = ops.paged_prefill_attention(
        q,
        batch.k_cache,
        batch.v_cache,
        batch.block_tables,
        bounds,
        batch.seq_lens,
        scale=0.3,
        max_q_len=max(chunks, default=0),
    )
    for row, chunk in enumerate(chunks):
        if chunk:
            rows = slice(int(bounds[row]), int(bounds[row + 1]))
            want = attended(q[rows], *contents(batch, row), 0.3, causal=True)
            torch.testing.assert_close(got[rows].double(), want, rtol=1e-5, atol=2e-6)
    assert not got[sum(chunks) :].any()


def test_prefill_ignores_rows_of_an_empty_sequence() -> None:
    batch = paged_batch([5, 0], num_kv_heads=1, dim=8)
    q = torch.randn(8, 2, 8)
    tables = batch.block_tables
    got = ops.paged_prefill_attention(
        q, batch.k_cache, batch.v_cache, tables, cumulative([5, 3]), batch.seq_lens,
        scale=1.0, max_q_len=5,
    )  # fmt: skip
    assert got[:5].any()
    assert not got[5:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("lengths", [[33, 33, 33], [33, 7, 16]], ids=["equal", "ragged"])
def test_decode_equals_prefill_of_one_token(dtype: torch.dtype, lengths: list[int]) -> None:
    batch = paged_batch(lengths, num_kv_heads=2, dim=32, dtype=dtype)
    q = torch.randn(len(lengths), 6, 32).to(dtype)
    paged = (batch.k_cache, batch.v_cache, batch.block_tables)
    decode = ops.paged_decode_attention(q, *paged, batch.seq_lens, scale=0.2)
    ones = cumulative([1] * len(lengths))
    prefill = ops.paged_prefill_attention(q, *paged, ones, batch.seq_lens, scale=0.2, max_q_len=1)
    tolerance = 2e-6 if dtype is torch.float32 else 1e-2
    torch.testing.assert_close(decode, prefill, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("forward", [sdpa_attention_forward, eager_attention_forward])
@pytest.mark.parametrize(("chunk", "length"), [(29, 29), (5, 50), (1, 50)])
def test_fp32_agrees_with_transformers(forward, chunk: int, length: int) -> None:
    heads, kv_heads, dim = 6, 2, 32
    batch = paged_batch([length], num_kv_heads=kv_heads, dim=dim)
    q = torch.randn(chunk, heads, dim)
    keys, values = (x.transpose(0, 1)[None] for x in contents(batch, 0))
    past = torch.ones(chunk, length).triu(length - chunk + 1).bool()
    mask = torch.zeros(chunk, length).masked_fill(past, -torch.inf)[None, None]
    module = SimpleNamespace(num_key_value_groups=heads // kv_heads, is_causal=True, training=False)
    want, _ = forward(
        module, q.transpose(0, 1)[None], keys, values, mask, scaling=dim**-0.5, dropout=0.0
    )
    paged = (batch.k_cache, batch.v_cache, batch.block_tables)
    got = ops.paged_prefill_attention(
        q, *paged, cumulative([chunk]), batch.seq_lens, scale=dim**-0.5, max_q_len=chunk
    )
    torch.testing.assert_close(got, want[0], rtol=1e-6, atol=1e-6)
    if chunk == 1:
        got = ops.paged_decode_attention(q, *paged, batch.seq_lens, scale=dim**-0.5)
        torch.testing.assert_close(got, want[0], rtol=1e-6, atol=1e-6)


@given(
    lengths=st.lists(st.sampled_from([0, 1, 4, 4, 15, 16, 17]), min_size=0, max_size=7),
    num_heads=st.integers(1, 3),
    spare_rows=st.integers(0, 2),
)
@settings(max_examples=40)
def test_pictures_attend_only_inside_themselves(
    lengths: list[int], num_heads: int, spare_rows: int
) -> None:
    tokens = sum(lengths) + spare_rows
    qkv = torch.randn(tokens, 3, num_heads, 8)
    q, k, v = qkv.unbind(1)  # strided, as the projection leaves them
    bounds = cumulative(lengths)
    got = ops.vision_attention(q, k, v, bounds, scale=0.4, max_seqlen=max(lengths, default=0))
    for row, length in enumerate(lengths):
        if length:
            rows = slice(int(bounds[row]), int(bounds[row + 1]))
            want = attended(q[rows], k[rows], v[rows], 0.4, causal=False)
            torch.testing.assert_close(got[rows].double(), want, rtol=1e-5, atol=2e-6)
    assert not got[sum(lengths) :].any()


def test_batches_that_shrink_and_grow_do_not_see_each_other() -> None:
    """Gathered keys live in memory that the thread keeps."""
    for lengths in ([64, 3], [5], [17, 17, 90], [1, 2]):
        batch = paged_batch(lengths, num_kv_heads=1, dim=8)
        q = torch.randn(len(lengths), 2, 8)
        got = ops.paged_decode_attention(
            q, batch.k_cache, batch.v_cache, batch.block_tables, batch.seq_lens, scale=1.0
        )
        for row in range(len(lengths)):
            want = attended(q[row : row + 1], *contents(batch, row), 1.0, causal=True)
            torch.testing.assert_close(got[row : row + 1].double(), want, rtol=1e-5, atol=2e-6)


def test_inference_mode_and_plain_mode_take_turns() -> None:
    batch = paged_batch([20, 9], num_kv_heads=1, dim=8)
    q = torch.randn(2, 1, 8)

    def once() -> Tensor:
        return ops.paged_decode_attention(
            q, batch.k_cache, batch.v_cache, batch.block_tables, batch.seq_lens, scale=1.0
        )

    with torch.inference_mode():
        first = once()
    assert torch.equal(first, once())


def test_scale_is_used() -> None:
    batch = paged_batch([40], num_kv_heads=1, dim=8)
    paged = (batch.k_cache, batch.v_cache, batch.block_tables, batch.seq_lens)
    flat = ops.paged_decode_attention(torch.randn(1, 1, 8), *paged, scale=0.0)
    torch.testing.assert_close(flat[0, 0], contents(batch, 0)[1].mean(0)[0])
    assert math.isfinite(float(flat.sum()))
