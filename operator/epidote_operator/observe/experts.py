"""This file is about what a fleet's experts did lately, how even that was, what would be better.

A fleet tells what it has counted since its workers started (`GET /admin/experts`), all of them
together: they serve the same requests, and hold one placement.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from epidote_core.errors import EpidoteError
from epidote_core.expert_placement import Placement, imbalance
from epidote_operator.observe.expert_moves import MoveWatch
from epidote_operator.observe.gateway_client import FleetExperts, FleetReport, GatewayClient
from epidote_operator.status.experts import ExpertsPlaced
from epidote_planner.expert_placement import EXPERT_S, BalancingPlacer
from epidote_planner.experts import ExpertLoad, ExpertPlacer

Tokens = tuple[tuple[float, ...], ...]  # [layer][expert]

# Share of a decode step that experts take where nobody has measured it: two thirds of what
# Qwen3-30B-A3B reads for a token are experts, and attention reads its KV besides.
TIME_RATIO = 0.5
HALF_LIFE_S = 120.0  # of counts: topics change, but a move must outlive the counts that it is for
LEAST_TOKENS = 100.0  # of an expert, on average, before anything is moved for them: 10 % noise


@dataclass(frozen=True, kw_only=True)
class ExpertLook:
    """What one look found. `placed` None: no worker holds whole experts."""

    load: ExpertLoad | None = None
    placed: ExpertsPlaced | None = None


MakePlacer = Callable[[Placement, int, float], ExpertPlacer]  # present, ranks, seconds a slot
NOTHING = ExpertLook()


def _balancing(present: Placement, ranks: int, expert_s: float) -> ExpertPlacer:
    return BalancingPlacer(present=present, ranks=ranks, expert_s=expert_s)


@dataclass
class ExpertWatch:
    """Turns counters into the planner's `ExpertLoad`; keeps what was counted lately.

    `least_tokens`: of an expert on average, before a placer is asked.
    """

    make_placer: MakePlacer = _balancing
    moves: MoveWatch = field(default_factory=MoveWatch)
    least_tokens: float = LEAST_TOKENS
    _last: tuple[tuple[int, ...], ...] = field(default=(), init=False)
    _lately: Tokens = field(default=(), init=False)
    _at_s: float = field(default=0.0, init=False)

    async def look(
        self,
        gateway: GatewayClient,
        fleet: FleetReport,
        now_s: float,
        *,
        time_ratio: float = TIME_RATIO,
    ) -> ExpertLook:
        """Ask `gateway`, which told of `fleet`. Nothing without experts, or where it can't tell.

        `time_ratio`: the share of a decode step that experts take.
        """
        if not fleet.num_experts:
            return NOTHING
        with contextlib.suppress(EpidoteError):  # a tick without them holds nothing up
            seen = await gateway.experts()
            # some tenths of a second for a large model, which other services should not wait for
            return await asyncio.to_thread(self.note, seen, now_s, time_ratio=time_ratio)
        return NOTHING

    def note(
        self, seen: FleetExperts, now_s: float, *, time_ratio: float = TIME_RATIO
    ) -> ExpertLook:
        """Take in what a fleet tells; the first time there is nothing to compare with.

        Where a worker has left meanwhile counts shrink, and one look is left out.
        """
        is_known = self._count(seen.tokens, now_s)
        skews = {
            digest: imbalance(self._lately, placement, ranks)
            for digest, (placement, ranks) in seen.placed().items()
            if len(placement) == len(self._lately)
        }
        each = [skews.get(worker.placement, 1.0) for worker in seen.workers]
        mean = sum(each) / len(each) if each else 1.0
        placed, may_propose = None, False
        if seen.workers:
            placed, may_propose = self.moves.look(seen.workers, mean, now_s)
        if not is_known:
            return ExpertLook(placed=placed)
        proposal = None
        if may_propose and skews and self._is_enough():
            worst = max(skews, key=lambda digest: skews[digest])
            placement, ranks = seen.placed()[worst]
            slot_s = max((worker.slot_s for worker in seen.workers), default=0.0)
            placer = self.make_placer(placement, ranks, slot_s or EXPERT_S)
            proposal = placer.propose(self._lately)
        load = ExpertLoad(imbalance=mean, expert_time_ratio=time_ratio, proposal=proposal)
        return ExpertLook(load=load, placed=placed)

    def _count(self, tokens: tuple[tuple[int, ...], ...], now_s: float) -> bool:
        """Add what was computed since the last look; False if that isn't known, or nothing."""
        last, self._last = self._last, tokens
        elapsed_s, self._at_s = max(0.0, now_s - self._at_s), now_s
        if _shape(last) != _shape(tokens):
            self._lately = ()
            return False
        grown = _each(lambda now, before: float(now - before), tokens, last)
        counts = [count for layer in grown for count in layer]
        if not counts or min(counts) < 0.0 or not sum(counts):
            return False
        kept = 0.5 ** (elapsed_s / HALF_LIFE_S)
        before = self._lately or _each(lambda count, _: 0.0, grown, grown)
        self._lately = _each(lambda new, old: new + kept * old, grown, before)
        return True

    def _is_enough(self) -> bool:
        counts = [count for layer in self._lately for count in layer]
        return sum(counts) >= self.least_tokens * len(counts)


def _shape(table: Iterable[Iterable[float]]) -> list[int]:
    return [len(tuple(layer)) for layer in table]


def _each(
    combine: Callable[[float, float], float],
    one: Iterable[Iterable[float]],
    other: Iterable[Iterable[float]],
) -> Tokens:
    return tuple(
        tuple(combine(a, b) for a, b in zip(*layers, strict=True))
        for layers in zip(one, other, strict=True)
    )
