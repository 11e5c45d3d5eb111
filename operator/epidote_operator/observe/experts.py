"""This file is about what the experts of a model did between two looks at the fleet."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from epidote_core.errors import EpidoteError
from epidote_operator.observe.gateway_client import FleetReport, GatewayClient
from epidote_planner.experts import ExpertLoad, ExpertPlacer

Tokens = tuple[tuple[float, ...], ...]  # [layer][expert]


def spread_evenly(tokens: Tokens) -> float:
    """The imbalance of workers whose devices hold a part of every expert, as Epidote's do: none.

    Whatever expert is asked for, all of a worker's devices compute it together.
    """
    return 1.0


@dataclass
class ExpertWatch:
    """Turns counters into the planner's `ExpertLoad`; keeps the last look's.

    `imbalance` is the busiest device's load over the mean, given what each expert computed;
    `time_ratio` the share of a decode step spent in experts. A `placer`, where workers can take
    placements, is asked with what was counted in between.
    """

    placer: ExpertPlacer | None = None
    imbalance: Callable[[Tokens], float] = spread_evenly
    time_ratio: float = 0.0  # without imbalance it stretches nothing
    _last: tuple[tuple[int, ...], ...] = field(default=(), init=False)

    async def look(self, gateway: GatewayClient, fleet: FleetReport) -> ExpertLoad | None:
        """Ask `gateway`, which told of `fleet`; None without experts, or where it can't tell."""
        if not fleet.num_experts:
            return None
        with contextlib.suppress(EpidoteError):  # a tick without them holds nothing up
            return self.note(await gateway.experts())
        return None

    def note(self, tokens: tuple[tuple[int, ...], ...]) -> ExpertLoad | None:
        """What was computed since the last call; None for the first, and if nothing was.

        Where a worker has left meanwhile counts shrink, and one look is left out.
        """
        last, self._last = self._last, tokens
        if [len(layer) for layer in last] != [len(layer) for layer in tokens]:
            return None
        grown = tuple(
            tuple(float(now - before) for now, before in zip(*layers, strict=True))
            for layers in zip(tokens, last, strict=True)
        )
        counts = [count for layer in grown for count in layer]
        if not counts or min(counts) < 0.0 or not sum(counts):
            return None
        return ExpertLoad(
            imbalance=self.imbalance(grown),
            expert_time_ratio=self.time_ratio,
            proposal=self.placer.propose(grown) if self.placer is not None else None,
        )
