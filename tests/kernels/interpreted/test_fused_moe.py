"""Routing, the order by expert and the experts' products in the interpreter, against the twins."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from epidote_kernels import ops, reference
from epidote_kernels.fused_moe import default_tiling, fused_moe
from epidote_kernels.moe_routing import most_tiles, order_by_expert
from epidote_kernels.reference.grouped_mm_moe import grouped_mm_moe
from epidote_kernels.tilings import Tiling

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
SMALL = Tiling(
    sizes={"BLOCK_ROWS": 16, "BLOCK_COLUMNS": 32, "BLOCK_DEPTH": 32}, num_warps=4, num_stages=2
)


def draw(
    tokens: int, hidden: int, inner: int, num_experts: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(tokens, hidden).to(dtype)
    gate_up = (torch.randn(num_experts, 2 * inner, hidden) * hidden**-0.5).to(dtype)
    down = (torch.randn(num_experts, hidden, inner) * inner**-0.5).to(dtype)
    return x, gate_up, down


def assert_equal_enough(got: Tensor, want: Tensor) -> None:
    assert got.dtype is want.dtype
    tolerance = {FP32: 1e-5, FP16: 4e-3, BF16: 4e-2}[want.dtype]
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [FP32, FP16, BF16])
@pytest.mark.parametrize(
    ("tokens", "num_experts", "top_k"), [(0, 4, 2), (1, 8, 8), (5, 60, 4), (40, 128, 8), (3, 1, 1)]
)
@pytest.mark.parametrize("renormalise", [False, True])
def test_routing(
    renormalise: bool, tokens: int, num_experts: int, top_k: int, dtype: torch.dtype
) -> None:
    # of a grid: unequal logits have unequal shares, whatever the last place of an exponential is
    logits = (torch.randn(tokens, num_experts) * 512).round().div(512).to(dtype)
    weights, experts = ops.moe_route(logits, top_k, renormalise=renormalise)
    want_weights, want_experts = reference.moe_route(logits, top_k, renormalise=renormalise)
    assert torch.equal(experts, want_experts)
    torch.testing.assert_close(weights, want_weights)


def test_of_equal_shares_the_lowest_experts_are_chosen() -> None:
    _, experts = ops.moe_route(torch.zeros(2, 5), 3)
    assert experts.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_routing_of_numbers_that_are_none_stays_inside_the_table() -> None:
    _, experts = ops.moe_route(torch.full((1, 6), float("nan")), 2)
    assert 0 <= int(experts.min()) <= int(experts.max()) < 6


SIZES = [1, 3, 5, 8, 12]  # experts: padded to a power of two, and not


@pytest.mark.parametrize("num_experts", SIZES)
@given(
    shares=st.lists(st.floats(-0.4, 1.4), min_size=1, max_size=700),
    block_rows=st.sampled_from([16, 64]),
)
@settings(max_examples=6)
def test_every_pair_has_one_row_of_its_expert_and_every_row_one_tile(
    num_experts: int, shares: list[float], block_rows: int
) -> None:
    experts = [round(share * num_experts) for share in shares]  # some below 0, some at E and past
    pairs = torch.tensor(experts, dtype=torch.int32).view(-1, 1)
    order = order_by_expert(pairs, num_experts, block_rows)
    starts = order.starts.tolist()
    rows: list[int] = []
    for expert in range(num_experts):
        mine = order.pairs[starts[expert] : starts[expert + 1]].tolist()
        assert mine == [place for place, who in enumerate(experts) if who == expert]
        rows += mine
    assert len(rows) == sum(0 <= who < num_experts for who in experts) == starts[-1]
    covered: list[int] = []
    for expert, row in zip(order.tile_experts.tolist(), order.tile_rows.tolist(), strict=True):
        assert -1 <= expert < num_experts
        if expert >= 0:
            covered += range(row, min(row + block_rows, starts[expert + 1]))
    assert covered == list(range(starts[-1]))
    assert len(order.tile_experts) == most_tiles(len(experts), num_experts, block_rows)


@pytest.mark.parametrize("num_experts", SIZES)
def test_ids_outside_the_experts_add_nothing_whatever_their_weight(num_experts: int) -> None:
    x, gate_up, down = draw(6, 32, 16, num_experts, FP32)
    last, past = num_experts - 1, num_experts
    ids = [[0, past], [past, last], [-1, past + 1], [past, past], [-7, 0], [2**31 - 1, -(2**31)]]
    experts = torch.tensor(ids, dtype=torch.int32)
    weights = torch.rand(experts.shape)
    weights[(experts < 0) | (experts >= num_experts)] = float("nan")
    got = ops.fused_moe(x, gate_up, down, weights, experts)
    assert_equal_enough(got, reference.fused_moe(x, gate_up, down, weights, experts))
    assert not got[[2, 3, 5]].any()


@pytest.mark.parametrize("dtype", [FP32, FP16, BF16])
@pytest.mark.parametrize(
    ("tokens", "hidden", "inner", "num_experts", "top_k"),
    [(0, 16, 8, 2, 1), (1, 40, 24, 4, 2), (7, 64, 32, 3, 3), (37, 33, 17, 5, 2)],
)
def test_experts(
    tokens: int, hidden: int, inner: int, num_experts: int, top_k: int, dtype: torch.dtype
) -> None:
    x, gate_up, down = draw(tokens, hidden, inner, num_experts, dtype)
    weights, experts = reference.moe_route(
        torch.randn(tokens, num_experts), top_k, renormalise=True
    )
    got = ops.fused_moe(x, gate_up, down, weights, experts)
    assert_equal_enough(got, reference.fused_moe(x, gate_up, down, weights, experts))


@given(
    experts=st.lists(st.lists(st.integers(-1, 3), min_size=2, max_size=2), min_size=1, max_size=24)
)
@settings(max_examples=8)
def test_any_load_even_one_expert_for_all_or_none_here(experts: list[list[int]]) -> None:
    x, gate_up, down = draw(len(experts), 32, 32, 4, FP32)
    chosen = torch.tensor(experts, dtype=torch.int32)
    weights = torch.rand(chosen.shape)
    got = fused_moe(x, gate_up, down, weights, chosen, tilings=(SMALL, SMALL))
    assert_equal_enough(got, reference.fused_moe(x, gate_up, down, weights, chosen))


def test_one_device_of_two_computes_its_experts_with_tiles_for_its_share() -> None:
    x, gate_up, down = draw(48, 32, 16, 4, FP32)
    weights, experts = reference.moe_route(torch.randn(48, 4), 2, renormalise=True)
    want = reference.fused_moe(x, gate_up, down, weights, experts)
    got = torch.zeros_like(want)
    for first in (0, 2):
        mine = (experts - first).contiguous()
        parts = gate_up[first : first + 2], down[first : first + 2]
        got += ops.fused_moe(x, *parts, weights, mine, num_everywhere=4)
    assert_equal_enough(got, want)


def test_a_view_of_a_wider_tensor_is_read_by_its_stride() -> None:
    x, gate_up, down = draw(5, 64, 16, 2, FP32)
    weights, experts = reference.moe_route(torch.randn(5, 2), 1, renormalise=True)
    half = x[:, :32]
    got = ops.fused_moe(
        half, gate_up[:, :, :32].contiguous(), down[:, :32].contiguous(), weights, experts
    )
    want = reference.fused_moe(half, gate_up[:, :, :32], down[:, :32], weights, experts)
    assert_equal_enough(got, want)


def test_tilings_of_unequal_rows_are_refused() -> None:
    x, gate_up, down = draw(2, 16, 16, 2, FP32)
    weights, experts = reference.moe_route(torch.randn(2, 2), 1, renormalise=True)
    tilings = default_tiling("moe_gate_up", 2, 64), default_tiling("moe_down", 2, 16)
    with pytest.raises(ValueError, match="tilings: must have equal BLOCK_ROWS, got 64 and 16"):
        fused_moe(x, gate_up, down, weights, experts, tilings=tilings)


@pytest.mark.parametrize(
    "ends", [{}, {"activation": ops.silu_mul, "sums_by_product": True}], ids=["plain", "fused"]
)
def test_the_rival_computes_the_same(ends: dict[str, Any]) -> None:
    x, gate_up, down = draw(9, 32, 16, 4, BF16)
    weights, experts = reference.moe_route(torch.randn(9, 4), 2, renormalise=True)
    got = grouped_mm_moe(x, gate_up, down, weights, experts, **ends)
    assert_equal_enough(got, reference.fused_moe(x, gate_up, down, weights, experts))
