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
from epidote_planner.policy import Bounds, PlannerPolicy
from epidote_planner.reach import unreachable
from epidote_planner.sizing import Split, SplitBounds, size
from epidote_planner.snapshot import CacheSignals
from epidote_planner.workload import request_classes

MAX_TRIES = 24
Trace = Callable[[], Iterator[SimRequest]]


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A fleet, what it showed in simulation, and what keeps it from being smaller.

    Where no split was found that meets the SLO it is the nearest one, and `limit` says what is in
    the way.
    """

    encode: int
    prefill: int
    decode: int
    coupled: int  # workers of a pool without roles that meet the SLO; 0: not found
    outcome: Outcome
    meets_slo: bool  # of the split
    limit: str

    @property
    def total(self) -> int:
        return self.encode + self.prefill + self.decode

    @property
    def is_found(self) -> bool:
        """Whether any fleet meets the SLO."""
        return self.meets_slo or self.coupled > 0

    @property
    def is_coupled(self) -> bool:
        """Whether the cheapest fleet that meets the SLO has no roles."""
        return self.coupled > 0 and not (self.meets_slo and self.total <= self.coupled)


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
    """Start from the model's split, then walk to the smallest that the simulation confirms.

    A load without media gets no encoder.
    """
    policy = PlannerPolicy(profile=profile, slo=slo)
    model = GroupModel(
        classes=request_classes(demand_of(trace()), policy, CacheSignals()), profile=profile
    )
    encoders = Bounds(least=1 if model.encode_load > 0.0 else 0)
    start = size(model, SplitBounds(encode=encoders))
    trial = _Trial(trace, profile, slo, encoders.least)
    out_of_reach = unreachable(model)
    fleet, outcome = trial.up(start, tries=0 if out_of_reach else MAX_TRIES)
    meets_slo = outcome.attainment >= slo.quantile
    if meets_slo:
        fleet, outcome = trial.down(fleet, outcome)
        limit = _limit(fleet, trial)
    else:
        limit = out_of_reach.text if out_of_reach else _miss(outcome, fleet, slo)
    return Advice(
        encode=fleet.encode,
        prefill=fleet.prefill,
        decode=fleet.decode,
        coupled=_least_coupled(trace, profile, slo, fleet.total),
        outcome=outcome,
        meets_slo=meets_slo,
        limit=limit,
    )


class _Trial:
    """Fleets of the trace in simulation."""

    def __init__(
        self, trace: Trace, profile: PerformanceProfile, slo: Slo, least_encoders: int
    ) -> None:
        self._trace, self._profile, self._slo = trace, profile, slo
        self._least_encoders = least_encoders

    def outcome(self, fleet: Split) -> Outcome:
        initial = split(fleet.encode, fleet.prefill, fleet.decode)
        config = SimConfig(profile=self._profile, slo=self._slo, initial=initial)
        return simulate(config, nothing, self._trace())

    def neighbours(self, fleet: Split, change: int) -> list[Split]:
        """One worker more or fewer of each role that the load has work for."""
        options = [
            Split(encode=fleet.encode, prefill=fleet.prefill + change, decode=fleet.decode),
            Split(encode=fleet.encode, prefill=fleet.prefill, decode=fleet.decode + change),
        ]
        if self._least_encoders:
            more = fleet.encode + change
            options.insert(0, Split(encode=more, prefill=fleet.prefill, decode=fleet.decode))
        return [
            option
            for option in options
            if option.encode >= self._least_encoders and min(option.prefill, option.decode) >= 1
        ]

    def up(self, fleet: Split, *, tries: int) -> tuple[Split, Outcome]:
        """Add where one more helps most until the SLO holds, or for so many tries."""
        outcome = self.outcome(fleet)
        for _ in range(tries):
            if outcome.attainment >= self._slo.quantile:
                break
            tried = [(self.outcome(more), more) for more in self.neighbours(fleet, +1)]
            outcome, fleet = max(tried, key=lambda pair: self._nearness(pair[0]))
        return fleet, outcome

    def down(self, fleet: Split, outcome: Outcome) -> tuple[Split, Outcome]:
        """Take away while the SLO still holds."""
        for _ in range(MAX_TRIES):
            tried = [(self.outcome(less), less) for less in self.neighbours(fleet, -1)]
            kept = [pair for pair in tried if pair[0].attainment >= self._slo.quantile]
            if not kept:
                break
            outcome, fleet = max(kept, key=lambda pair: pair[0].attainment)
        return fleet, outcome

    def _nearness(self, outcome: Outcome) -> tuple[float, float]:
        """Attainment, and where all miss alike, how far the latencies are over their limits."""
        ttft, tpot = outcome.ttft_s["mean"], outcome.tpot_s["mean"]
        return outcome.attainment, -max(ttft / self._slo.ttft_s, tpot / self._slo.tpot_s)


def _miss(outcome: Outcome, fleet: Split, slo: Slo) -> str:
    """Which promise is missed most, where nothing says that no fleet could keep it."""
    if outcome.ttft_attainment < outcome.tpot_attainment:
        met, p99, limit, name = outcome.ttft_attainment, outcome.ttft_s["p99"], slo.ttft_s, "TTFT"
    else:
        met, p99, limit, name = outcome.tpot_attainment, outcome.tpot_s["p99"], slo.tpot_s, "TPOT"
    return (
        f"{name}: {met:.1%} of the requests keep it, p99 {p99:.3g} s where {limit:g} s are "
        f"allowed; splits of up to {fleet.total} workers were tried"
    )


def _limit(fleet: Split, trial: _Trial) -> str:
    """Which promise breaks first when a worker is taken away."""
    parts = []
    for less in trial.neighbours(fleet, -1):
        outcome = trial.outcome(less)
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
