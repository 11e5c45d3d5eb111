"""This file is about the latency promise a service makes, and whether requests kept it."""

from collections.abc import Iterable
from dataclasses import dataclass

from epidote_core.timing import RequestTiming


@dataclass(frozen=True, kw_only=True)
class Slo:
    """`quantile` of the requests get their first token and their tokens in time.

    `ttft_s` is counted from the intended arrival; `tpot_s` is a request's mean time per output
    token after the first.
    """

    ttft_s: float
    tpot_s: float
    quantile: float = 0.99

    def __post_init__(self) -> None:
        if self.ttft_s <= 0.0 or self.tpot_s <= 0.0:
            raise ValueError(f"an SLO's latencies must be > 0, got {self}")
        if not 0.0 < self.quantile < 1.0:
            raise ValueError(f"an SLO's quantile lies inside (0, 1), got {self.quantile}")

    def met_by(self, timing: RequestTiming) -> bool:
        """Whether one finished request met both targets; a failed one never does."""
        return not timing.failed and timing.ttft_s <= self.ttft_s and timing.tpot_s <= self.tpot_s


def attainment(timings: Iterable[RequestTiming], slo: Slo) -> float:
    """Share of requests that met every target of `slo`, in [0, 1].

    A failed request counts and never meets the SLO. No requests: 1.0, nothing was missed.

    >>> attainment([], Slo(ttft_s=0.5, tpot_s=0.05))
    1.0
    """
    met = [slo.met_by(timing) for timing in timings]
    return sum(met) / len(met) if met else 1.0
