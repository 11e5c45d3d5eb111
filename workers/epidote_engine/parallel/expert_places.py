"""This file is about which experts stand where on all ranks, and about moving them while requests
run.

A move is a row of small steps (`slot_changes`), the same on every rank. Each rank reads what comes
into its own slots (`incoming_experts`); when a step is there on every rank, each copies it into its
slots and changes its table, all before the same pass (`following` sees to that): until then the
former experts compute.

It outlives the model: weights that come back with a role are read by the placement in force.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from epidote_core.expert_placement import Placement, check_placement, default_placement
from epidote_engine.config import ModelSpec
from epidote_engine.layers.norm import RmsNorm
from epidote_engine.models.decoder import fill_expert
from epidote_engine.parallel.incoming_experts import Buffer, IncomingExperts, Read
from epidote_engine.parallel.placed_experts import PlacedExperts
from epidote_engine.parallel.shards import Shards
from epidote_engine.parallel.slot_changes import Change, slot_changes
from epidote_engine.parallel.weights import ShardedWeights
from epidote_kernels import ops

logger = logging.getLogger(__name__)


class ExpertPlaces:
    """The placement in force, and the way to another one. Every rank must make the same calls."""

    def __init__(self, spec: ModelSpec, shards: Shards, num_redundant: int) -> None:
        """
        Raises:
            InvalidRequest: see `Shards.check`.
        """
        self._incoming: IncomingExperts | None = None
        config = shards.own(spec.decoder, num_redundant)
        assert config.experts is not None, "checked"
        assert config.expert_slots is not None, "asked for"
        self._spec, self._shards, self._experts = spec, shards, config.experts
        self.num_redundant, self.slots = num_redundant, config.expert_slots
        self._now = list(
            default_placement(
                len(config.experts.layers), config.experts.num_experts, self.slots.num_slots
            )
        )
        self._target: Placement = self.placement
        self._layers: Sequence[tuple[PlacedExperts, RmsNorm]] = ()
        self._dtype = torch.float32  # until a model is loaded

    @property
    def placement(self) -> Placement:
        """In force now."""
        return tuple(self._now)

    @property
    def is_moving(self) -> bool:
        return self._incoming is not None

    def layer(self, index: int) -> tuple[int, ...]:
        """[slot] → expert of the model's layer of that index, one with experts."""
        return self._now[self._experts.layers.index(index)]

    def held(self) -> dict[int, tuple[int, ...]]:
        """The experts in this rank's slots, by the model's layers with experts."""
        own = slice(self.slots.own.start, self.slots.own.stop)
        return {i: self._now[n][own] for n, i in enumerate(self._experts.layers)}

    def attach(self, layers: Sequence[tuple[PlacedExperts, RmsNorm]], dtype: torch.dtype) -> None:
        """A model was loaded by `placement`: its layers with experts, and the norms before them.

        `dtype` is the one that it computes in; its experts may be kept in 8 bits.
        """
        self._layers, self._dtype = layers, dtype

    def detach(self) -> None:
        """The model is no more: a move under way is done, since the next one is loaded so."""
        self._end()
        self._layers, self._now = (), list(self._target)

    def place(self, placement: Placement) -> None:
        """Start to move; where nothing is loaded it is done at once. Replaces a former target.

        Raises:
            InvalidRequest: see `check_placement`; nothing was changed.
        """
        check_placement(
            placement,
            num_layers=len(self._now),
            num_experts=self._experts.num_experts,
            num_slots=self.slots.num_slots,
        )
        target = tuple(map(tuple, placement))
        if self.is_moving and target == self._target:
            return  # told again: what has been read stays
        self._end()
        self._target = target
        if not self._layers:
            self._now = list(self._target)
        elif self._target != self.placement:
            first = self._layers[0][0]
            like = first.expert(0)
            norms = [norm for _, norm in self._layers]
            self._incoming = IncomingExperts(
                _steps(self.placement, self._target),
                self.slots.own,
                partial(
                    _open_files, self._spec, self._shards, self._experts.layers, norms, self._dtype
                ),
                like,
            )
            logger.info("experts begin to move", extra={"slots": self._num_to_move()})

    def num_ready(self, wait_s: float = 0.0) -> int:
        """How many steps this rank has read; below 0: it can't. Waits up to `wait_s` for one."""
        assert self._incoming is not None, "nothing moves"
        return self._incoming.num_staged(wait_s)

    def advance(self, num_ready: int) -> None:
        """Take one step of the move if the least of all ranks' `num_ready` allows it.

        Below 0 the move is given up: the placement stays as it is now.
        """
        if num_ready < 0:
            fields = {"slots": self._num_to_move()}
            logger.error("experts stay where they are: their weights can't be read", extra=fields)
            self._target = self.placement
            self._end()
        elif num_ready:
            self._step()

    @torch.inference_mode(False)
    def _step(self) -> None:
        assert self._incoming is not None, "nothing moves"
        staged = self._incoming.take()
        experts = self._layers[staged.layer][0]
        for slot, buffer in staged.buffers.items():
            experts.fill(slot, *buffer.parts)
        slots = list(self._now[staged.layer])
        for slot, expert in staged.change.items():
            slots[slot] = expert
        self._now[staged.layer] = tuple(slots)
        experts.route(slots)
        self._incoming.give_back(staged)
        if self.placement == self._target:
            self._end()
            logger.info("experts have moved")

    def _end(self) -> None:
        if self._incoming is not None:
            self._incoming.stop()
            self._incoming = None

    def _num_to_move(self) -> int:
        return sum(
            a != b
            for now, target in zip(self._now, self._target, strict=True)
            for a, b in zip(now, target, strict=True)
        )

    def __del__(self) -> None:
        self._end()  # else its thread would wait for ever


def _steps(now: Placement, target: Placement) -> Iterator[tuple[int, Change]]:
    for number, (here, wanted) in enumerate(zip(now, target, strict=True)):
        for change in slot_changes(here, wanted):
            yield number, change


def _open_files(
    spec: ModelSpec,
    shards: Shards,
    indices: Sequence[int],
    norms: Sequence[RmsNorm],
    dtype: torch.dtype,
) -> Read:
    """Called in another thread: looks at what does not change, and keeps no model alive.

    Experts in 8 bits are quantised after reading, by the rule of a fresh start: equal codes.
    """
    weights = ShardedWeights(spec, shards, device="cpu", whole_experts=True)

    def read(number: int, expert: int, buffer: Buffer) -> None:
        def of(name: str) -> Tensor:
            return weights[f"layers.{indices[number]}.{name}"].to(dtype)

        at, codes = f"mlp.experts.{expert}", (buffer.gate_up, buffer.down)
        if not buffer.scales:
            fill_expert(*codes, at, norms[number], of)
            return
        plain = torch.empty_like(codes[0], dtype=dtype), torch.empty_like(codes[1], dtype=dtype)
        fill_expert(*plain, at, norms[number], of)
        for weight, code, scale in zip(plain, codes, buffer.scales, strict=True):
            values, scales = ops.quantize_weight(weight, code.dtype)
            code.copy_(values)
            scale.copy_(scales)

    return read
