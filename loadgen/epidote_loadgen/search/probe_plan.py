"""This file is about the plan of one probe: the user's own plan at another rate."""

from dataclasses import replace

from epidote_loadgen.arrivals.closed_loop import ClosedLoop
from epidote_loadgen.arrivals.rate import constant
from epidote_loadgen.arrivals.schedule import ArrivalStream, OpenLoop
from epidote_loadgen.plan import RunPlan


def probe_plan(plan: RunPlan, *, rps: float, duration_s: float, seed: int) -> RunPlan:
    """`plan` with its classes in their proportions, at a constant rate, for a while.

    Raises:
        ValueError: the plan's arrivals are a trace, whose times are its own.
    """
    if isinstance(plan.arrivals, ClosedLoop):
        weights, spacing = dict(plan.arrivals.weights), None
    elif isinstance(plan.arrivals, OpenLoop):
        weights, spacing = plan.arrivals.expected_by_class(), plan.arrivals.streams[0].spacing
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
