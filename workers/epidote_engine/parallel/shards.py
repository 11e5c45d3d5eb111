"""This file is about which part of a model a rank holds, and how parts become whole again.

| tensor                       | cut                   | after it                               |
| ---------------------------- | --------------------- | -------------------------------------- |
| q, k, v, gate, up            | rows: heads, channels | nothing: each rank goes on with its own |
| attention output, down       | columns               | sum over the ranks                     |
| embedding                    | rows of the vocabulary | sum: other ranks' tokens give zeros   |
| head                         | rows of the vocabulary | side by side                          |
| every expert's gate, up, down | as gate, up and down  | sum over the ranks                     |
| or whole experts, in slots   | slots                 | sum over the ranks                     |
| the experts' router          | not                   |                                        |
| norms                        | not                   |                                        |

With fewer KV heads than ranks, a KV head stands on several ranks.
"""

from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from epidote_core.errors import InvalidRequest
from epidote_engine.expert_spec import ExpertSlots, ExpertSpec
from epidote_engine.models.decoder import DecoderConfig


class Shards:
    """This process's place among the ranks of `group`."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        """`group` None: every process of `torch.distributed`, which must be initialised."""
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    @classmethod
    def alone(cls) -> "Shards":
        """The one rank of a model that is not cut; `torch.distributed` is not asked."""
        return cls.place(0, 1)

    @classmethod
    def place(cls, rank: int, size: int) -> "Shards":
        """A place for questions about sizes, without processes: nothing can be summed there."""
        shards = cls.__new__(cls)
        shards.group, shards.rank, shards.size = None, rank, size
        return shards

    def check(self, config: DecoderConfig, redundant: int | None = None) -> None:
        """Refuse a model that can't be cut this way.

        `redundant` None: every expert is cut; else whole ones lie in slots, so many more than
        experts.

        Raises:
            InvalidRequest: naming the size that does not divide.
        """
        size, kv_heads = self.size, config.num_kv_heads
        inner = config.experts.intermediate if config.experts and redundant is None else 0
        if redundant is not None:
            self._check_slots(config.experts, redundant)
        for name, value, ok in (
            ("num_attention_heads", config.num_heads, config.num_heads % size == 0),
            ("num_key_value_heads", kv_heads, kv_heads % size == 0 or size % kv_heads == 0),
            ("intermediate_size", config.intermediate, config.intermediate % size == 0),
            ("moe_intermediate_size", inner, inner % size == 0),
        ):
            if not ok:
                raise InvalidRequest(
                    f"tensor parallelism over {size}: {name} {value} can't be cut", name
                )

    def _check_slots(self, experts: ExpertSpec | None, redundant: int) -> None:
        if self.size == 1:
            raise InvalidRequest(
                "expert_parallel: needs tensor parallelism over at least 2 ranks", "expert_parallel"
            )
        if experts is None:
            raise InvalidRequest("expert_parallel: the model has no experts", "expert_parallel")
        most = experts.num_experts * (self.size - 1)  # more: one expert twice on a rank
        slots = experts.num_experts + redundant
        if redundant > most:
            raise InvalidRequest(
                f"num_redundant_experts: {redundant} is more than {most}, with which each of "
                f"{self.size} ranks has every expert",
                "num_redundant_experts",
            )
        if slots % self.size:
            raise InvalidRequest(
                f"num_redundant_experts: {experts.num_experts} experts and {redundant} redundant "
                f"ones can't be shared out over {self.size} ranks",
                "num_redundant_experts",
            )

    def own(self, config: DecoderConfig, redundant: int | None = None) -> DecoderConfig:
        """The configuration of this rank's part; hidden size and vocabulary stay whole.

        Raises:
            InvalidRequest: see `check`.
        """
        self.check(config, redundant)
        experts, slots = config.experts, None
        if experts is not None and redundant is not None:
            num_slots = experts.num_experts + redundant
            slots = ExpertSlots(num_slots=num_slots, num_ranks=self.size, rank=self.rank)
        elif experts is not None:
            experts = replace(experts, intermediate=experts.intermediate // self.size)
        return replace(
            config,
            experts=experts,
            expert_slots=slots,
            num_heads=config.num_heads // self.size,
            num_kv_heads=max(1, config.num_kv_heads // self.size),
            intermediate=config.intermediate // self.size,
        )

    def part(self, count: int, unit: int = 1) -> tuple[int, int]:
        """[start, end) of `count` things that lie in units; fewer units than ranks: shared ones."""
        units = count // unit
        if units >= self.size:
            each = units // self.size
            return self.rank * each * unit, (self.rank + 1) * each * unit
        at = self.rank * units // self.size
        return at * unit, (at + 1) * unit

    def vocabulary(self, vocab: int) -> tuple[int, int]:
        """[start, end) of the tokens whose rows are here; the last rank may have fewer, or none."""
        each = -(-vocab // self.size)
        return min(self.rank * each, vocab), min((self.rank + 1) * each, vocab)

    def summed(self, part: Tensor) -> Tensor:
        """The sum of all ranks' `part`. Mutates it."""
        dist.all_reduce(part, group=self.group)
        return part

    def largest(self, part: Tensor) -> Tensor:
        """The largest of all ranks' `part`, number by number. Mutates it."""
        dist.all_reduce(part, dist.ReduceOp.MAX, group=self.group)
        return part

    def side_by_side(self, part: Tensor, width: int) -> Tensor:
        """All ranks' `part` [N, each] along the last dimension, cut to `width`."""
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part.contiguous(), group=self.group)
        return torch.cat(parts, -1)[:, :width]

    def least(self, value: int, device: torch.device | str) -> int:
        """The smallest of all ranks' values."""
        found = torch.tensor([value], device=device)
        dist.all_reduce(found, dist.ReduceOp.MIN, group=self.group)
        return int(found)
