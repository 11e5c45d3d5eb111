"""The ranks' parts of a layer with experts add up to the whole layer, wherever experts stand."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from epidote_engine.expert_spec import ExpertSlots
from epidote_engine.layers.linear import Linear
from epidote_engine.layers.mlp import Experts
from epidote_engine.parallel.placed_experts import PlacedExperts
from epidote_engine.parallel.shards import Shards

HIDDEN, INNER, TOP_K = 16, 8, 2


class Apart(Shards):
    """A rank whose part is looked at before it is added to the others'."""

    def summed(self, part: Tensor) -> Tensor:
        return part


def whole(num_experts: int) -> Experts:
    generator = torch.Generator().manual_seed(num_experts)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return Experts(
        router=Linear(drawn(num_experts, HIDDEN)),
        gate_up=drawn(num_experts, 2 * INNER, HIDDEN),
        down=drawn(num_experts, HIDDEN, INNER),
        per_token=TOP_K,
        renormalises=True,
        tokens=torch.zeros(num_experts, dtype=torch.int64),
    )


def part_of(experts: Experts, layer: list[int], slots: ExpertSlots) -> PlacedExperts:
    held = torch.tensor([layer[slot] for slot in slots.own])
    part = Experts(
        experts.router, experts.gate_up[held], experts.down[held], TOP_K, True,
        torch.zeros(experts.router.out_features, dtype=torch.int64),
    )  # fmt: skip
    shards = Apart.place(slots.rank, slots.num_ranks)
    return PlacedExperts(part, shards, slots, layer)


@given(st.data(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_parts_add_up_and_every_rank_counts_alike(
    data: st.DataObject, num_ranks: int, each: int, tokens: int
) -> None:
    num_slots = max(num_ranks * each, TOP_K * num_ranks)
    num_experts = data.draw(st.integers(TOP_K, num_slots))
    rest = st.lists(
        st.integers(0, num_experts - 1),
        min_size=num_slots - num_experts,
        max_size=num_slots - num_experts,
    )
    layer = list(data.draw(st.permutations([*range(num_experts), *data.draw(rest)])))
    experts = whole(num_experts)
    x = torch.randn(tokens, HIDDEN, generator=torch.Generator().manual_seed(tokens))
    live = torch.tensor([row % 3 < 2 for row in range(tokens)]).long()
    want = experts(x, live)
    got = torch.zeros_like(want)
    for rank in range(num_ranks):
        slots = ExpertSlots(num_slots=num_slots, num_ranks=num_ranks, rank=rank)
        part = part_of(experts, layer, slots)
        got += part(x, live)
        assert part.tokens is not None
        assert experts.tokens is not None
        assert torch.equal(part.tokens, experts.tokens)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_replicas_on_several_ranks_share_the_tokens_of_their_expert() -> None:
    experts = whole(2)  # both experts take every token
    layer = [0, 1, 0, 1]
    parts = [
        part_of(experts, layer, ExpertSlots(num_slots=4, num_ranks=2, rank=rank))
        for rank in range(2)
    ]
    x = torch.randn(6, HIDDEN, generator=torch.Generator().manual_seed(1))
    outputs = [part(x) for part in parts]
    assert [bool(row.any()) for row in outputs[0]] == [True, False] * 3
    assert [bool(row.any()) for row in outputs[1]] == [False, True] * 3


def test_a_new_table_sends_tokens_elsewhere_without_new_memory() -> None:
    experts = whole(2)
    slots = ExpertSlots(num_slots=4, num_ranks=2, rank=0)
    part = part_of(experts, [0, 1, 0, 1], slots)
    x = torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(2))
    where = part._table.data_ptr()
    part.fill(1, experts.gate_up[0], experts.down[0])
    part.route([0, 0, 1, 1])  # expert 0 here alone, expert 1 on the other rank
    assert part._table.data_ptr() == where
    other = part_of(experts, [0, 0, 1, 1], ExpertSlots(num_slots=4, num_ranks=2, rank=1))
    torch.testing.assert_close(part(x) + other(x), experts(x), rtol=1e-4, atol=1e-4)
