"""Rotary positions and cache writes against transformers' modules and a loop over tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRotaryEmbedding
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRotaryEmbedding

from epidote_kernels import ops

THETA = 10_000.0


def inverse_frequencies(dim: int) -> torch.Tensor:
    return 1.0 / (THETA ** (torch.arange(0, dim, 2, dtype=torch.float) / dim))


def transformers_rotary(sections: tuple[int, int, int], interleaved: bool) -> torch.nn.Module:
    dim = 2 * sum(sections)
    rope = {"rope_type": "default", "rope_theta": THETA, "mrope_section": list(sections)}
    sizes = {"hidden_size": 2 * dim, "num_attention_heads": 2, "num_key_value_heads": 1}
    if interleaved:
        return Qwen3VLTextRotaryEmbedding(
            Qwen3VLTextConfig(**sizes, head_dim=dim, rope_parameters=rope)
        )
    return Qwen2_5_VLRotaryEmbedding(Qwen2_5_VLTextConfig(**sizes, rope_parameters=rope))


@pytest.mark.parametrize("scaling", [1.0, 1.2])
def test_table_holds_cosines_then_sines(scaling: float) -> None:
    inv_freq = inverse_frequencies(12)
    table = ops.rope_table(inv_freq, 50, attention_scaling=scaling)
    angles = torch.arange(50).double()[:, None] * inv_freq.double()
    assert table.dtype is torch.float32
    torch.testing.assert_close(
        table.double(), torch.cat((angles.cos(), angles.sin()), 1) * scaling, rtol=0, atol=4e-6
    )
    cos, sin = ops.rope_cos_sin(table, torch.tensor([49, 0, 7]))
    assert torch.equal(cos, table[[49, 0, 7], :6])
    assert torch.equal(sin, table[[49, 0, 7], 6:])


@pytest.mark.parametrize("interleaved", [False, True], ids=["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("sections", [(16, 24, 24), (24, 20, 20), (2, 3, 3), (4, 2, 2), (6, 5, 5)])
def test_three_axes_have_the_bits_of_transformers(
    sections: tuple[int, int, int], interleaved: bool
) -> None:
    half, tokens = sum(sections), 33
    positions = torch.randint(0, 400, (3, tokens))
    table = ops.rope_table(inverse_frequencies(2 * half), 400)
    got_cos, got_sin = ops.mrope_cos_sin(table, positions, sections, interleaved)
    want_cos, want_sin = transformers_rotary(sections, interleaved)(
        torch.empty(1), positions[:, None]
    )
    assert torch.equal(torch.cat((got_cos, got_cos), 1), want_cos[0])
    assert torch.equal(torch.cat((got_sin, got_sin), 1), want_sin[0])


@pytest.mark.parametrize("interleaved", [False, True])
def test_three_equal_axes_are_one(interleaved: bool) -> None:
    table = ops.rope_table(inverse_frequencies(16), 90)
    positions = torch.randint(0, 90, (11,))
    got = ops.mrope_cos_sin(table, positions.expand(3, -1), (2, 3, 3), interleaved)
    for one, three in zip(ops.rope_cos_sin(table, positions), got, strict=True):
        assert torch.equal(one, three)


def filed_one_by_one(cache: torch.Tensor, rows: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    cache = cache.clone()
    for row, slot in zip(rows, slots.tolist(), strict=True):
        if slot >= 0:
            cache[slot // cache.shape[1], slot % cache.shape[1]] = row
    return cache


@given(
    tokens=st.integers(0, 9),
    num_kv_heads=st.integers(1, 3),
    group=st.integers(1, 4),
    dim=st.sampled_from([2, 8, 24, 64]),
    block_size=st.sampled_from([1, 3, 16]),
    padding=st.booleans(),
    fused=st.booleans(),
    alternating=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_rotation_and_writes_equal_transformers_and_a_loop(
    tokens: int,
    num_kv_heads: int,
    group: int,
    dim: int,
    block_size: int,
    padding: bool,
    fused: bool,
    alternating: bool,
    dtype: torch.dtype,
) -> None:
    num_heads = group * num_kv_heads
    qkv = torch.randn(tokens, num_heads + 2 * num_kv_heads, dim).to(dtype)
    q, k, v = qkv.split((num_heads, num_kv_heads, num_kv_heads), 1)
    if not fused:
        q, k, v = q.clone(), k.clone(), v.clone()
    table = ops.rope_table(inverse_frequencies(dim), 100)
    cos, sin = ops.rope_cos_sin(table, torch.randint(0, 100, (tokens,)))
    caches = torch.randn(tokens + 2, 2, block_size, num_kv_heads, dim).to(dtype)
    k_cache, v_cache = caches.unbind(1)
    if not alternating:
        k_cache, v_cache = k_cache.clone(), v_cache.clone()
    slots = torch.randperm((tokens + 2) * block_size)[:tokens]
    if padding:
        slots[::2] = -1

    full_cos = torch.cat((cos, cos), 1).to(dtype)
    full_sin = torch.cat((sin, sin), 1).to(dtype)
    want_q, want_k = apply_rotary_pos_emb(q, k, full_cos, full_sin)
    want_k_cache = filed_one_by_one(k_cache, want_k, slots)
    want_v_cache = filed_one_by_one(v_cache, v, slots)

    got_q = ops.rope_kv_write(q, k, v, cos, sin, k_cache, v_cache, slots)
    assert torch.equal(got_q, want_q)
    assert torch.equal(k_cache, want_k_cache)
    assert torch.equal(v_cache, want_v_cache)
