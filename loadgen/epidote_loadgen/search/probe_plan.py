"""This file is about the plan of one probe: the user's own plan at another rate."""

from collections import Counter
from dataclasses import replace

from epidote_loadgen.arrivals.closed_loop import ClosedLoop
from epidote_loadgen.arrivals.rate import constant
from epidote_loadgen.arrivals.schedule import ArrivalStream, OpenLoop
from epidote_loadgen.plan import RunPlan

FOREVER_S = 86_400.0  # of a plan whose rates have no end of their own


def probe_plan(plan: RunPlan, *, rps: float, duration_s: float, seed: int) -> RunPlan:
    """`plan` with its classes in their proportions, at a constant rate, for a while.

    Raises:
        ValueError: the plan's arrivals are a trace, whose times are its own.
    """
    if isinstance(plan.arrivals, ClosedLoop):
        weights, spacing = dict(plan.arrivals.weights), None
    elif isinstance(plan.arrivals, OpenLoop):
        weights, spacing = _shares(plan.arrivals), plan.arrivals.streams[0].spacing
    else:
        raise ValueError(
            "arrivals: a sweep needs an open or closed loop; a trace has its own times"
        )
    stream = ArrivalStream(weights=weights, rate=constant(rps), duration_s=duration_s)
    if spacing is not None:
        stream = replace(stream, spacing=spacing)
    return replace(
        plan,
        arrivals=OpenLoop(streams=(stream,), seed=seed),
        seed=seed,
        duration_s=duration_s,
    )


def _shares(arrivals: OpenLoop) -> dict[str, float]:
    """How many of the plan's requests are of each class, as expected."""
    shares: Counter[str] = Counter()
    for stream in arrivals.streams:
        expected = stream.rate.expected(min(stream.duration_s, FOREVER_S))
        if stream.num_requests is not None:
            expected = min(expected, stream.num_requests)
        total = sum(stream.weights.values())
        for name, weight in stream.weights.items():
            shares[name] += expected * weight / total  # type: ignore[assignment]
    return dict(shares)
