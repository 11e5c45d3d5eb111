"""This file is about one layer's experts on one rank: whole ones, in slots whose experts change."""

from collections.abc import Sequence

import torch
from torch import Tensor

from epidote_engine.expert_spec import ExpertSlots
from epidote_engine.layers.mlp import Experts
from epidote_engine.parallel.shards import Shards
from epidote_engine.parallel.slot_changes import replica_table
from epidote_kernels import ops


class PlacedExperts(Experts):
    """The experts in this rank's slots; the ranks' outputs are added.

    Every rank routes alike and finds in a table which slots are its own. Weights and table are
    changed in place, so that a captured CUDA graph follows.
    """

    def __init__(
        self, part: Experts, shards: Shards, slots: ExpertSlots, layer: Sequence[int]
    ) -> None:
        """`part` has the experts of this rank's slots of `layer` [slot] → expert."""
        super().__init__(
            part.router, part.gate_up, part.down, part.per_token, part.renormalises, part.tokens,
            part.scales,
        )  # fmt: skip
        self._shards, self._slots = shards, slots
        self._table = self._routes(layer).to(part.down.device)

    def __call__(self, x: Tensor, live: Tensor | None = None) -> Tensor:
        """x [T, hidden] → [T, hidden], the same on every rank."""
        weights, experts = self.routed(x, live)
        slots = ops.replica_slots(experts, self._table)
        part = ops.fused_moe(
            x, self.gate_up, self.down, weights, slots,
            scales=self.scales, num_everywhere=self._slots.num_slots,
        )  # fmt: skip
        return self._shards.summed(part)

    def expert(self, place: int) -> tuple[Tensor, ...]:
        """What one expert here consists of: gate_up and down; of codes also the scales of both."""
        return tuple(tensor[place] for tensor in (self.gate_up, self.down, *(self.scales or ())))

    def fill(self, slot: int, *parts: Tensor) -> None:
        """Put an expert, as `expert` gives one, into one of this rank's slots; does not wait for
        page-locked memory."""
        place = slot - self._slots.own.start
        for ours, part in zip(self.expert(place), parts, strict=True):
            ours.copy_(part, non_blocking=True)

    def route(self, layer: Sequence[int]) -> None:
        """From the next pass on tokens go where `layer` says."""
        self._table.copy_(self._routes(layer), non_blocking=True)

    def _routes(self, layer: Sequence[int]) -> Tensor:
        table = replica_table(layer, self.router.out_features, self._slots)
        rows = torch.tensor(table, dtype=torch.int32)
        return rows.pin_memory() if self.down.is_cuda else rows
