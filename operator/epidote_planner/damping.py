"""This file is about following demand without flapping: grow at once, shrink after a window.

Only the pool's size is damped with a window, because workers take minutes; roles inside the
pool follow within seconds and are damped by dwell, cool-down and the gain of a switch.
"""

from epidote_planner.forecast import Series, advance, forecast
from epidote_planner.memory import PlannerMemory
from epidote_planner.policy import PlannerPolicy


def remember_need(
    memory: PlannerMemory, need: float, now_s: float, policy: PlannerPolicy
) -> Series:
    """Follow the pool's need; its forecast must reach as far as a new worker's start-up."""
    return advance(
        memory.pool_need,
        need,
        at_s=now_s,
        ahead_s=horizon_s(policy),
        policy=policy.demand,
        seasonal=True,
    )


def horizon_s(policy: PlannerPolicy) -> float:
    """How far ahead a decision about workers must look."""
    return policy.profile.startup_s + policy.tick_s


def forecast_need(pool_need: Series, reserve: float, policy: PlannerPolicy) -> float:
    """The pool's need when a worker asked for now would be ready, with room for the error.

    The room is for the whole pool and not for each role: a burst of images and a burst of long
    answers seldom meet, and a role switch takes seconds. `reserve` scales it by what was missed
    lately.
    """
    expected = forecast(pool_need, ahead_s=horizon_s(policy), policy=policy.demand)
    return expected + reserve * policy.demand.burst_sigmas * pool_need.error


def window_needs(
    memory: PlannerMemory, need: int, now_s: float, policy: PlannerPolicy
) -> tuple[tuple[float, int], ...]:
    """The falling staircase of recent needs; its first entry is the window's maximum."""
    oldest = now_s - policy.damping.shrink_window_s
    kept = [(at_s, past) for at_s, past in memory.pool_needs if at_s > oldest and past > need]
    return (*kept, (now_s, need))
