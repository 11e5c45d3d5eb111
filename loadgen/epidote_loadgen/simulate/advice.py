"""This file is about the cheapest fleet for a load, for people: sized, then tried in simulation."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from epidote_core.modality import Modality
from epidote_core.slo import Slo
from epidote_loadgen.simulate.config import Layout, SimConfig, coupled, split
from epidote_loadgen.simulate.outcome import Outcome
from epidote_loadgen.simulate.policy import nothing
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_loadgen.simulate.simulation import simulate
from epidote_planner.capacity import GroupModel
from epidote_planner.demand import ModalityDemand
from epidote_planner.distribution import Distribution
from epidote_planner.performance import PerformanceProfile
from epidote_planner.policy import PlannerPolicy
from epidote_planner.sizing import Split, SplitBounds, size
from epidote_planner.snapshot import CacheSignals
from epidote_planner.workload import request_classes

MAX_TRIES = 24
Trace = Callable[[], Iterator[SimRequest]]


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A fleet, what it showed in simulation, and what keeps it from being smaller."""

    encode: int
    prefill: int
    decode: int
    coupled: int  # workers of a pool without roles that would do; 0: not found
    outcome: Outcome
    limit: str

    @property
    def total(self) -> int:
        return self.encode + self.prefill + self.decode


def demand_of(
    trace: Iterable[SimRequest], *, start_s: float = 0.0, duration_s: float | None = None
) -> tuple[ModalityDemand, ...]:
    """Mean arrival rate and distributions, by modality; without a duration, to the last arrival."""
    rows: dict[Modality, list[SimRequest]] = {}
    last_s = 0.0
    for request in trace:
        rows.setdefault(request.modality, []).append(request)
        last_s = request.arrival_s
    passed_s = max(1.0, last_s - start_s) if duration_s is None else duration_s
    return tuple(
        ModalityDemand(
            modality=modality,
            rps=len(items) / passed_s,
            input_tokens=Distribution.of([float(r.text_tokens) for r in items]),
            output_tokens=Distribution.of([float(r.output_tokens) for r in items]),
            images=Distribution.of([float(len(r.image_tokens)) for r in items]),
            image_tokens=Distribution.of([float(sum(r.image_tokens)) for r in items]),
        )
        for modality, items in sorted(rows.items())
    )


def advise(trace: Trace, profile: PerformanceProfile, slo: Slo) -> Advice:
    """Start from the model's split, then walk to the smallest that the simulation confirms."""
    policy = PlannerPolicy(profile=profile, slo=slo)
    model = GroupModel(
        classes=request_classes(demand_of(trace()), policy, CacheSignals()), profile=profile
    )
    fleet, outcome = _walk(size(model, SplitBounds()), trace, profile, slo)
    return Advice(
        encode=fleet.encode,
        prefill=fleet.prefill,
        decode=fleet.decode,
        coupled=_least_coupled(trace, profile, slo, fleet.total),
        outcome=outcome,
        limit=_limit(fleet, trace, profile, slo),
    )


def _try(fleet: Split, trace: Trace, profile: PerformanceProfile, slo: Slo) -> Outcome:
    config = SimConfig(
        profile=profile, slo=slo, initial=split(fleet.encode, fleet.prefill, fleet.decode)
    )
    return simulate(config, nothing, trace())


def _walk(
    fleet: Split, trace: Trace, profile: PerformanceProfile, slo: Slo
) -> tuple[Split, Outcome]:
    """Add where one more helps most until the SLO holds, then take away while it still does."""
    outcome = _try(fleet, trace, profile, slo)
    for _ in range(MAX_TRIES):
        if outcome.attainment >= slo.quantile:
            break
        tried = [(_try(more, trace, profile, slo), more) for more in _neighbours(fleet, +1)]
        outcome, fleet = max(tried, key=lambda pair: pair[0].attainment)
    for _ in range(MAX_TRIES):
        tried = [(_try(less, trace, profile, slo), less) for less in _neighbours(fleet, -1)]
        kept = [pair for pair in tried if pair[0].attainment >= slo.quantile]
        if not kept:
            break
        outcome, fleet = max(kept, key=lambda pair: pair[0].attainment)
    return fleet, outcome


def _neighbours(fleet: Split, change: int) -> list[Split]:
    options = [
        Split(encode=fleet.encode + change, prefill=fleet.prefill, decode=fleet.decode),
        Split(encode=fleet.encode, prefill=fleet.prefill + change, decode=fleet.decode),
        Split(encode=fleet.encode, prefill=fleet.prefill, decode=fleet.decode + change),
    ]
    return [option for option in options if min(option.prefill, option.decode, option.encode) >= 1]


def _limit(fleet: Split, trace: Trace, profile: PerformanceProfile, slo: Slo) -> str:
    """Which promise breaks first when a worker is taken away."""
    parts = []
    for less in _neighbours(fleet, -1):
        outcome = _try(less, trace, profile, slo)
        role = (
            "encode"
            if less.encode < fleet.encode
            else "prefill"
            if less.prefill < fleet.prefill
            else "decode"
        )
        promise = "TTFT" if outcome.ttft_attainment < outcome.tpot_attainment else "TPOT"
        parts.append(f"one {role} worker fewer: {promise}, attainment {outcome.attainment:.3f}")
    return "; ".join(parts) or "every role is at its minimum"


def _least_coupled(trace: Trace, profile: PerformanceProfile, slo: Slo, about: int) -> int:
    """Fewest workers of a pool without roles, up to three times the split fleet."""
    low, high = 0, 3 * about

    def enough(count: int) -> bool:
        config = SimConfig(profile=profile, slo=slo, layout=Layout.COUPLED, initial=coupled(count))
        return simulate(config, nothing, trace()).attainment >= slo.quantile

    if not enough(high):
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
