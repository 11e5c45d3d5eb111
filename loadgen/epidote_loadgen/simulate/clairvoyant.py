"""This file is about a reference between the lower bound and real policies.

A re-sizer that knows each window's demand in advance and starts and removes workers in no time:
the planner's own sizing on the true requests of every window, without head-room, reserve,
damping or start-up. It is no bound, since a cheaper split may exist that its model does not see;
the distance to it is the price of not knowing the future.
"""

from collections.abc import Iterable

from epidote_loadgen.simulate.advice import demand_of
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_planner.capacity import GroupModel
from epidote_planner.policy import PlannerPolicy
from epidote_planner.sizing import SplitBounds, size
from epidote_planner.snapshot import CacheSignals
from epidote_planner.workload import request_classes


def clairvoyant_gpus(
    trace: Iterable[SimRequest], policy: PlannerPolicy, *, window_s: float = 300.0
) -> float:
    """Mean number of workers."""
    totals: list[int] = []
    window: list[SimRequest] = []
    end_s = window_s
    for request in trace:
        while request.arrival_s >= end_s:
            totals.append(_size(window, end_s - window_s, window_s, policy))
            window, end_s = [], end_s + window_s
        window.append(request)
    totals.append(_size(window, end_s - window_s, window_s, policy))
    return sum(totals) / len(totals)


def _size(window: list[SimRequest], start_s: float, window_s: float, policy: PlannerPolicy) -> int:
    demand = demand_of(window, start_s=start_s, duration_s=window_s)
    classes = request_classes(demand, policy, CacheSignals())
    return size(GroupModel(classes=classes, profile=policy.profile), SplitBounds()).total
