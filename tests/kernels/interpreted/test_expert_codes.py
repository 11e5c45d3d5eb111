"""Experts' products with weights in 8 bits in the interpreter, against the twin and the weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from epidote_kernels import ops, reference
from epidote_kernels.fused_moe import fused_moe
from epidote_kernels.tilings import Tiling

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
CODES = [torch.int8, torch.float8_e4m3fn]
TOLERANCE = {FP32: 1e-5, FP16: 4e-3, BF16: 4e-2}
SMALL = Tiling(
    sizes={"BLOCK_ROWS": 16, "BLOCK_COLUMNS": 32, "BLOCK_DEPTH": 32}, num_warps=4, num_stages=2
)


def coded(weight: Tensor, code: torch.dtype) -> tuple[Tensor, Tensor]:
    """(codes, scales) of every expert's weight, whose columns are of unlike sizes."""
    sizes = torch.rand(weight.shape[:2]) + 0.5
    found = [ops.quantize_weight(expert, code) for expert in weight * sizes[..., None]]
    values = torch.stack([values.view(torch.uint8) for values, _ in found]).view(code)
    return values, torch.stack([scales for _, scales in found])


def draw(
    tokens: int, hidden: int, inner: int, num_experts: int, dtype: torch.dtype, code: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    x = torch.randn(tokens, hidden).to(dtype)
    gate_up, first = coded(torch.randn(num_experts, 2 * inner, hidden) * hidden**-0.5, code)
    down, second = coded(torch.randn(num_experts, hidden, inner) * inner**-0.5, code)
    return x, gate_up, down, (first, second)


def widened(codes: Tensor, scales: Tensor) -> Tensor:
    return codes.float() * scales[..., None]


def assert_equal_enough(got: Tensor, want: Tensor, dtype: torch.dtype) -> None:
    assert got.dtype is dtype
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(got.float(), want.float(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("dtype", [FP32, FP16, BF16])
@pytest.mark.parametrize(
    ("tokens", "hidden", "inner", "num_experts", "top_k"),
    [(0, 16, 8, 2, 1), (1, 40, 24, 4, 2), (7, 64, 32, 3, 3), (37, 33, 17, 5, 2)],
)
def test_the_kernel_gives_what_the_twin_and_the_widened_weights_give(
    tokens: int,
    hidden: int,
    inner: int,
    num_experts: int,
    top_k: int,
    dtype: torch.dtype,
    code: torch.dtype,
) -> None:
    x, gate_up, down, scales = draw(tokens, hidden, inner, num_experts, dtype, code)
    weights, experts = reference.moe_route(
        torch.randn(tokens, num_experts), top_k, renormalise=True
    )
    got = ops.fused_moe(x, gate_up, down, weights, experts, scales=scales)
    twin = reference.fused_moe(x, gate_up, down, weights, experts, scales=scales)
    assert_equal_enough(got, twin, dtype)
    wide = widened(gate_up, scales[0]), widened(down, scales[1])
    assert_equal_enough(got, reference.fused_moe(x.float(), *wide, weights, experts), dtype)


@given(
    experts=st.lists(st.lists(st.integers(-1, 3), min_size=2, max_size=2), min_size=1, max_size=24),
    code=st.sampled_from(CODES),
)
@settings(max_examples=8)
def test_any_load_even_one_expert_for_all_or_none_here(
    experts: list[list[int]], code: torch.dtype
) -> None:
    x, gate_up, down, scales = draw(len(experts), 32, 32, 4, FP32, code)
    chosen = torch.tensor(experts, dtype=torch.int32)
    weights = torch.rand(chosen.shape)
    got = fused_moe(x, gate_up, down, weights, chosen, scales=scales, tilings=(SMALL, SMALL))
    want = reference.fused_moe(x, gate_up, down, weights, chosen, scales=scales)
    assert_equal_enough(got, want, FP32)


def test_every_expert_and_column_has_its_own_scale() -> None:
    x, gate_up, down, scales = draw(5, 32, 16, 3, FP32, torch.int8)
    weights, experts = torch.ones(5, 1), torch.tensor([[0], [1], [2], [1], [0]], dtype=torch.int32)
    before = ops.fused_moe(x, gate_up, down, weights, experts, scales=scales)
    scales[1][1, 7] *= 2.0
    after = ops.fused_moe(x, gate_up, down, weights, experts, scales=scales)
    changed = (before != after).nonzero().tolist()
    assert changed == [[1, 7], [3, 7]]
    torch.testing.assert_close(after[1, 7], 2 * before[1, 7])
