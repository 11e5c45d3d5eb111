"""This file is about following demand without flapping: grow at once, shrink after a window.

Only the pool's size is damped with a window, because workers take minutes; roles inside the
pool follow within seconds and are damped by dwell, cool-down and the gain of a switch.
"""

from dataclasses import dataclass, replace
from math import ceil

from epidote_planner.forecast import Series, advance, forecast
from epidote_planner.memory import PlannerMemory
from epidote_planner.policy import PlannerPolicy

# Workers: what smoothing leaves of old peaks dies out slowly and is no reason for a whole one. A
# fiftieth is a fifth of the head-room (a tenth) that even a pool of one has.
NEGLIGIBLE = 0.02
USUAL_ERRORS = 3.0  # times the typical shortfall of a forecast: higher peaks are news


@dataclass(frozen=True, kw_only=True)
class PoolNeed:
    """The pool's need over time, smoothed twice: `quick` follows news, `steady` leaves out noise.

    How long peaks last is a matter of the load, and not of ours to fix: a pool that follows peaks
    which end before a worker starts pays for workers that come too late, and a pool that averages
    them pays for an hour after the load has gone. Whichever forecast was lately nearer to what the
    workers that it asked for then met is the one that counts.
    """

    quick: Series
    steady: Series

    @property
    def better(self) -> Series:
        return self.steady if self.steady.miss2 <= self.quick.miss2 else self.quick


def remember_need(
    memory: PlannerMemory, need: float, now_s: float, policy: PlannerPolicy
) -> PoolNeed:
    """Follow the pool's need; forecasts are judged by what a worker asked for then would meet."""

    def follow(series: Series | None, smoothing_s: float) -> Series:
        return advance(
            series,
            need,
            at_s=now_s,
            ahead_s=served_s(policy),
            policy=replace(policy.demand, smoothing_s=smoothing_s),
            seasonal=True,
        )

    return PoolNeed(
        quick=follow(memory.pool_need, policy.demand.pool_smoothing_s),
        steady=follow(memory.pool_steady, policy.demand.pool_steady_s),
    )


def horizon_s(policy: PlannerPolicy) -> float:
    """How far ahead a decision about workers must look."""
    return policy.profile.startup_s + policy.tick_s


def served_s(policy: PlannerPolicy) -> float:
    """From asking for a worker to the middle of the window that it then stays at least."""
    return horizon_s(policy) + policy.damping.shrink_window_s / 2


def forecast_need(pool_need: Series, reserve: float, policy: PlannerPolicy) -> float:
    """The pool's need when a worker asked for now would be ready, with room for the error.

    The room is for the whole pool and not for each role: a burst of images and a burst of long
    answers seldom meet, and a role switch takes seconds. `reserve` scales it by what was missed
    lately.
    """
    expected = forecast(pool_need, ahead_s=horizon_s(policy), policy=policy.demand)
    return expected + reserve * policy.demand.burst_sigmas * pool_need.error


def lasting_need(need: float, expected: float, error: float, reserve: float) -> float:
    """The need that workers are started and kept for: the forecast, and what counts of a peak.

    A peak over the forecast that is no higher than forecasts usually err ends, as a rule, before a
    worker could start: it counts by the learnt reserve, in full after misses and for a share where
    hours went well, for role switches and the gateway carry it. What is higher counts at once.

    >>> lasting_need(9.0, 6.0, 0.5, 0.25)
    7.875
    """
    excess = max(0.0, need - expected)
    usual = min(excess, USUAL_ERRORS * error)
    return expected + min(1.0, reserve) * usual + (excess - usual)


def whole_workers(need: float) -> int:
    """The workers for a fractional need, not counting a negligible rest.

    >>> whole_workers(8.001), whole_workers(8.1)
    (8, 9)
    """
    return ceil(need - NEGLIGIBLE)


def window_needs(
    memory: PlannerMemory, need: int, present: int, now_s: float, policy: PlannerPolicy
) -> tuple[tuple[float, int], ...]:
    """The falling staircase of recent needs; its first entry is the window's maximum.

    A planner without memory takes the `present` workers for the window's need: one tick's traffic
    is no reason to take a fleet down that somebody else has sized.
    """
    oldest = now_s - policy.damping.shrink_window_s
    past_needs = memory.pool_needs if memory.at_s is not None else ((now_s, present),)
    kept = [(at_s, past) for at_s, past in past_needs if at_s > oldest and past > need]
    return (*kept, (now_s, need))


def forget_lost(
    window: tuple[tuple[float, int], ...], present: int
) -> tuple[tuple[float, int], ...]:
    """The staircase after workers failed, of whom `present` are left.

    The window spares what a removal might have cost. Who is lost and not needed now is not started
    anew for the seconds that are left of it.
    """
    at_s, need = window[-1]
    top = max(present, need)
    return (
        *((at, min(step, top)) for at, step in window[:-1] if min(step, top) > need),
        (at_s, need),
    )


def remember_growth(
    window: tuple[tuple[float, int], ...], total: int
) -> tuple[tuple[float, int], ...]:
    """The staircase after workers were started for a need that it does not know.

    A deficit that no switch could fill takes the pool over its target. What was started for it
    stays for the window, like every other growth: a start costs minutes, the worker's stay little.
    """
    at_s, need = window[-1]
    return (*(step for step in window[:-1] if step[1] > total), (at_s, max(need, total)))
