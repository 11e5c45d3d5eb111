"""The twins of norms and activation against transformers' own modules and against float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from epidote_kernels import ops

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
ROWS = st.integers(0, 9)
SIZES = st.sampled_from([1, 2, 7, 16, 31, 64, 65, 100, 576])


def llama_norm(weight: torch.Tensor, eps: float) -> LlamaRMSNorm:
    module = LlamaRMSNorm(weight.shape[0], eps=eps).to(weight.dtype)
    module.weight.data.copy_(weight)
    return module


@given(rows=ROWS, size=SIZES, eps=st.sampled_from([1e-6, 1e-5]))
def test_fp32_norm_has_the_bits_of_transformers(rows: int, size: int, eps: float) -> None:
    x, weight = torch.randn(rows, size), torch.randn(size)
    with torch.no_grad():
        want = llama_norm(weight, eps)(x)
    assert torch.equal(ops.rms_norm(x, weight, eps), want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_in_each_type_has_the_bits_of_transformers(dtype: torch.dtype) -> None:
    x, weight = torch.randn(7, 96).to(dtype), torch.randn(96).to(dtype)
    with torch.no_grad():
        want = llama_norm(weight, 1e-6)(x)
    got = ops.rms_norm(x, weight, 1e-6)
    assert got.dtype is dtype
    assert torch.equal(got, want)


def test_norm_over_heads_of_a_wider_projection() -> None:
    qkv = torch.randn(5, 10, 32)
    heads, weight = qkv[:, 2:8], torch.randn(32)
    want = heads.double() * (heads.double().square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    got = ops.rms_norm(heads, weight, 1e-6)
    torch.testing.assert_close(got, (want * weight).float(), rtol=1e-6, atol=1e-6)


def test_norm_of_zeros_is_zeros() -> None:
    assert not ops.rms_norm(torch.zeros(2, 8), torch.ones(8), 1e-6).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_sum_is_rounded_before_it_is_normed(dtype: torch.dtype) -> None:
    x, residual = torch.randn(3, 64).to(dtype), torch.randn(3, 64).to(dtype)
    weight = torch.randn(64).to(dtype)
    kept = x.clone(), residual.clone()
    normed, total = ops.add_rms_norm(x, residual, weight, 1e-5)
    assert torch.equal(total, x + residual)
    assert torch.equal(normed, ops.rms_norm(x + residual, weight, 1e-5))
    assert torch.equal(x, kept[0])
    assert torch.equal(residual, kept[1])


@given(rows=ROWS, size=SIZES)
def test_activation_is_silu_times_up(rows: int, size: int) -> None:
    gate_up = torch.randn(rows, 2 * size)
    gate, up = gate_up.double().split(size, 1)
    want = gate / (1 + torch.exp(-gate)) * up
    torch.testing.assert_close(ops.silu_mul(gate_up).double(), want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_activation_agrees_with_transformers(dtype: torch.dtype) -> None:
    config = LlamaConfig(hidden_size=24, intermediate_size=40, num_attention_heads=2)
    mlp = LlamaMLP(config).to(dtype)
    x = torch.randn(5, 24).to(dtype)
    with torch.no_grad():
        gate_up = torch.cat((mlp.gate_proj(x), mlp.up_proj(x)), 1)
        want = mlp(x)
        torch.testing.assert_close(mlp.down_proj(ops.silu_mul(gate_up)), want)


def test_activation_survives_large_gates() -> None:
    got = ops.silu_mul(torch.tensor([[-200.0, 200.0, 1.0, 1.0]]))
    assert got.tolist() == [[0.0, 200.0]]
