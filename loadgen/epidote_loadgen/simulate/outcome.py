"""This file is about what a run showed: attainment, goodput, latencies, GPU-seconds, decisions."""

from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from epidote_loadgen.simulate.config import SimConfig
from epidote_loadgen.simulate.policy import Decision
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_planner.decision import RemoveWorker, SwitchRole
from epidote_planner.lane import Lane
from epidote_planner.snapshot import ClusterSnapshot

REVERSAL_WINDOW_S = 300.0  # a pool that turns inside it went there for nothing


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One tick, for the report's time axis."""

    at_s: float
    arrival_rps: Mapping[str, float]
    image_rps: float
    workers: Mapping[str, int]
    ttft_met: float
    tpot_met: float
    ttft_over_slo: float  # p99 of what finished since the last tick, over its own limit
    tpot_over_slo: float
    reason: str
    text: str
    changed: bool


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All figures of one run. Latencies are of served requests, attainment counts all."""

    num_requests: int
    num_good: int
    num_lost: int  # shed, or still open at the end
    duration_s: float
    gpu_seconds: float
    ttft_s: Mapping[str, float]
    tpot_s: Mapping[str, float]
    e2e_s: Mapping[str, float]
    ttft_attainment: float
    tpot_attainment: float
    num_switches: int
    num_starts: int
    num_removals: int
    num_reversals: int  # grown and shrunk again inside the window: starts for nothing
    num_regrown: int  # shrunk and grown again inside it: demand came back
    moments: tuple[Moment, ...] = ()

    @property
    def attainment(self) -> float:
        """Share of all requests that met every target, from their intended arrival."""
        return self.num_good / self.num_requests if self.num_requests else 1.0

    @property
    def goodput_rps(self) -> float:
        return self.num_good / self.duration_s if self.duration_s else 0.0

    @property
    def gpu_seconds_per_good(self) -> float | None:
        """None where no request was good: JSON has no infinity."""
        return self.gpu_seconds / self.num_good if self.num_good else None

    @property
    def mean_gpus(self) -> float:
        return self.gpu_seconds / self.duration_s if self.duration_s else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values, derived figures included."""
        return {
            **asdict(self),
            "attainment": self.attainment,
            "goodput_rps": self.goodput_rps,
            "gpu_seconds_per_good": self.gpu_seconds_per_good,
            "mean_gpus": self.mean_gpus,
        }

    def summary(self) -> dict[str, Any]:
        """`to_json` without the moments."""
        return {key: value for key, value in self.to_json().items() if key != "moments"}


class Recorder:
    """Collects while a run goes on. Compact: a day is most of a million requests."""

    def __init__(self, config: SimConfig) -> None:
        self._config = config
        self._ttft = array("d")
        self._tpot = array("d")
        self._e2e = array("d")
        self._num_good = self._num_shed = 0
        self._num_ttft = self._num_tpot = 0
        self._moments: list[Moment] = []
        self._since_tick: list[tuple[float, float]] = []  # (TTFT, TPOT) over their limits
        self._pool: list[tuple[float, int]] = []
        self._duration_s = 0.0
        self._gpu_seconds = 0.0

    def finished(self, request: SimRequest) -> None:
        if request.arrival_s < self._config.warmup_s:
            return
        slo = self._config.slo_for(request.modality)
        ttft_s, tpot_s = request.ttft_s, request.tpot_s
        self._since_tick.append((ttft_s / slo.ttft_s, tpot_s / slo.tpot_s))
        self._ttft.append(ttft_s)
        self._e2e.append(request.finished_s - request.arrival_s)
        if request.output_tokens > 1:
            self._tpot.append(tpot_s)
        first, rest = ttft_s <= slo.ttft_s, tpot_s <= slo.tpot_s
        self._num_ttft += first
        self._num_tpot += rest
        self._num_good += first and rest

    def shed(self, request: SimRequest) -> None:
        if request.arrival_s >= self._config.warmup_s:
            self._num_shed += 1

    def close(self, now_s: float, gpu_seconds: float) -> None:
        """The last request has been answered."""
        self._duration_s = now_s
        self._gpu_seconds = gpu_seconds

    def tick(
        self, snapshot: ClusterSnapshot, decision: Decision, workers: Mapping[Lane, int]
    ) -> None:
        seen = snapshot.attainment
        latencies, self._since_tick = self._since_tick, []
        total = sum(workers.values())
        if not self._pool or self._pool[-1][1] != total:
            self._pool.append((snapshot.now_s, total))
        self._moments.append(
            Moment(
                at_s=snapshot.now_s,
                arrival_rps={t.modality.value: t.arrival_rps for t in snapshot.traffic},
                image_rps=sum(t.arrival_rps * t.images.mean for t in snapshot.traffic),
                workers={str(lane): count for lane, count in sorted(workers.items())},
                ttft_met=seen.ttft_ratio if seen else 1.0,
                tpot_met=seen.tpot_ratio if seen else 1.0,
                ttft_over_slo=_p99([ttft for ttft, _ in latencies]),
                tpot_over_slo=_p99([tpot for _, tpot in latencies]),
                reason=decision.reason,
                text=decision.text,
                changed=any(
                    not isinstance(a, SwitchRole | RemoveWorker) or a.worker
                    for a in decision.actions
                ),
            )
        )

    def outcome(
        self, *, num_lost: int, num_switches: int, num_starts: int, num_removals: int
    ) -> Outcome:
        served = len(self._ttft)
        reversals, regrown = _turns(self._pool)
        lost = num_lost + self._num_shed
        total = served + lost
        return Outcome(
            num_requests=total,
            num_good=self._num_good,
            num_lost=lost,
            duration_s=self._duration_s,
            gpu_seconds=self._gpu_seconds,
            ttft_s=_quantiles(self._ttft),
            tpot_s=_quantiles(self._tpot),
            e2e_s=_quantiles(self._e2e),
            ttft_attainment=self._num_ttft / total if total else 1.0,
            tpot_attainment=self._num_tpot / total if total else 1.0,
            num_switches=num_switches,
            num_starts=num_starts,
            num_removals=num_removals,
            num_reversals=reversals,
            num_regrown=regrown,
            moments=tuple(self._moments),
        )


def _quantiles(values: "array[float]") -> dict[str, float]:
    if not values:
        return {"mean": 0.0, "p50": 0.0, "p90": 0.0, "p95": 0.0, "p99": 0.0}
    ordered = sorted(values)
    last = len(ordered) - 1
    found = {f"p{round(q * 100)}": ordered[round(q * last)] for q in (0.5, 0.9, 0.95, 0.99)}
    return {"mean": sum(ordered) / len(ordered), **found}


def _p99(values: list[float]) -> float:
    """0.0 where nothing finished."""
    ordered = sorted(values)
    return ordered[round(0.99 * (len(ordered) - 1))] if ordered else 0.0


def _turns(pool: list[tuple[float, int]]) -> tuple[int, int]:
    """Turns inside the window: (grown and shrunk again, shrunk and grown again)."""
    reversals = regrown = 0
    last_s, last_up = -1e18, True
    for (_, before), (at_s, after) in pairwise(pool):
        up = after > before
        if up != last_up and at_s - last_s < REVERSAL_WINDOW_S:
            reversals += not up
            regrown += up
        last_s, last_up = at_s, up
    return reversals, regrown
