"""This file is about how many processes a run needs where nobody said."""

import math

from epidote_loadgen.arrivals.closed_loop import ClosedLoop
from epidote_loadgen.plan import RunPlan

# A send keeps its process for 15 to 30 µs, mostly to wake up whoever listens. Above this rate more
# than one gap in fifty would be shorter; with the slots dealt out in turn, neighbours never share
# a process.
RPS_A_PROCESS = 1000.0


def how_many(plan: RunPlan, *, num_cores: int) -> int:
    """The plan's own number, or what its rate needs: at most one a core, and each with a share of
    every limit. A closed loop, which has no rate, gets one."""
    if plan.num_processes is not None:
        return plan.num_processes
    if isinstance(plan.arrivals, ClosedLoop):
        return 1
    wanted = math.ceil(plan.arrivals.peak_rps() / RPS_A_PROCESS)
    limits = (plan.limits.max_in_flight, plan.limits.max_connections)
    return max(1, min(wanted, num_cores, *(most for most in limits if most is not None)))
