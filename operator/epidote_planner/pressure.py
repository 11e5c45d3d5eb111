"""This file is about what the gateway can do at once, while switches and workers take their time.

The load factor becomes pressure only after it has lasted: a cache threshold that follows every
spike would hand out wrong answers for nothing.
"""

from dataclasses import dataclass

from epidote_planner.decision import AdviseGateway
from epidote_planner.policy import PressurePolicy

NO_PRESSURE = AdviseGateway(cache_pressure=0.0, lossy_pressure=0.0, shed_ratio=0.0)


@dataclass(frozen=True, kw_only=True)
class Pressure:
    """The advice, and since when the pool has been overloaded (None: it isn't)."""

    advice: AdviseGateway
    overloaded_since_s: float | None


def advise(
    need: float,
    routable: int,
    overloaded_since_s: float | None,
    now_s: float,
    policy: PressurePolicy,
) -> Pressure:
    """Cheap answers first: relax the cache, then lossy options, then shed what can't be carried.

    `need` and `routable` count workers, `need` with fractions.
    """
    load = need / routable if routable else (policy.enter_load if need > 0.0 else 0.0)
    since: float | None = None
    if load > policy.enter_load:
        since = now_s if overloaded_since_s is None else overloaded_since_s
    elif load >= policy.leave_load:
        since = overloaded_since_s
    if since is None or now_s - since < policy.hold_s:
        return Pressure(advice=NO_PRESSURE, overloaded_since_s=since)
    excess = min(1.0, max(0.0, load - policy.enter_load))
    shed = min(policy.max_shed_ratio, max(0.0, 1.0 - 1.0 / load)) if load > 1.0 else 0.0
    advice = AdviseGateway(
        cache_pressure=round(excess, 2),
        lossy_pressure=round(max(0.0, 2.0 * excess - 1.0), 2),
        shed_ratio=round(shed, 2),
    )
    return Pressure(advice=advice, overloaded_since_s=since)
