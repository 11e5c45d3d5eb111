"""Which replica of an expert takes a token: kernel and twin against a plain loop."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epidote_kernels import ops, reference


@given(st.data(), st.integers(0, 300), st.integers(1, 3), st.integers(1, 6))
@settings(max_examples=15)
def test_replicas_take_tokens_in_turns(
    data: st.DataObject, tokens: int, top_k: int, num_experts: int
) -> None:
    lists = st.lists(st.integers(-1, 9), min_size=1, max_size=4)
    replicas = data.draw(st.lists(lists, min_size=num_experts, max_size=num_experts))
    table = torch.full((num_experts, 5), 77, dtype=torch.int32)
    for expert, slots in enumerate(replicas):
        table[expert, : 1 + len(slots)] = torch.tensor([len(slots), *slots])
    experts = torch.randint(0, num_experts, (tokens, top_k), dtype=torch.int32)
    want = [
        [replicas[expert][row % len(replicas[expert])] for expert in chosen]
        for row, chosen in enumerate(experts.tolist())
    ]
    for slots in (ops.replica_slots(experts, table), reference.replica_slots(experts, table)):
        assert slots.dtype is torch.int32
        assert slots.tolist() == want


@pytest.mark.parametrize(
    ("experts", "table", "words"),
    [
        (torch.zeros(3).int(), torch.ones(2, 2).int(), r"experts, table: must .*got \[3\]"),
        (torch.zeros(3, 1).int(), torch.ones(2, 1).int(), r"experts, table: .*and \[2, 1\]"),
        (torch.zeros(3, 1), torch.ones(2, 2).int(), "experts: must be torch.int32"),
        (torch.zeros(3, 1).int(), torch.ones(2, 2), "table: must be torch.int32"),
        (torch.zeros(3, 1).int(), torch.ones(3, 2).int().T[:2], "table: must be contiguous"),
    ],
)
def test_what_does_not_fit_is_named(experts: torch.Tensor, table: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ops.replica_slots(experts, table)
