"""Ratio guards hold like bounds: at every plan, and while its actions are carried out."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from math import inf

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from epidote_core.roles import Role, WorkerState
from epidote_planner.decision import AddWorkers, Plan, RemoveWorker, SwitchRole
from epidote_planner.fakes import (
    PretendCluster,
    image_traffic,
    policy,
    quiet_signals,
    snapshot,
    text_traffic,
    workers,
)
from epidote_planner.lane import DEFAULT_GROUP, SPLIT_ROLES, Lane
from epidote_planner.planner import plan
from epidote_planner.policy import Bounds, DampingPolicy, PlannerPolicy, RatioGuard
from epidote_planner.ratios import keeps, lowered, raised
from epidote_planner.snapshot import ClusterSnapshot, RoleSignals, WorkerStatus

ENCODE, PREFILL, DECODE = (Lane(DEFAULT_GROUP, role) for role in SPLIT_ROLES)
HALF_AS_MANY = RatioGuard(numerator=Role.DECODE, denominator=Role.PREFILL, least=0.5)


@st.composite
def guards(draw: st.DrawFn, *, narrow: bool = True) -> tuple[RatioGuard, ...]:
    found = []
    for _ in range(draw(st.integers(1, 2))):
        above, below = draw(st.permutations(SPLIT_ROLES))[:2]
        least = draw(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]))
        widths = [1.0, 1.5, 4.0, inf] if narrow else [4.0, 8.0, inf]
        most = max(least, 0.25) * draw(st.sampled_from(widths))
        found.append(RatioGuard(numerator=above, denominator=below, least=least, most=most))
    return tuple(found)


@st.composite
def guarded_policies(draw: st.DrawFn, *, narrow: bool = True) -> PlannerPolicy:
    least = {role: draw(st.integers(0, 2)) for role in SPLIT_ROLES}
    try:
        return policy(
            roles={role: Bounds(least=low, most=low + 20) for role, low in least.items()},
            pool=Bounds(least=0, most=sum(least.values()) + draw(st.integers(3, 30))),
            fixed_pool=draw(st.booleans()),
            ratios=draw(guards(narrow=narrow)),
            damping=DampingPolicy(shrink_window_s=draw(st.sampled_from([0.0, 300.0]))),
        )
    except ValueError:  # no split keeps them all
        assume(False)
        raise


@st.composite
def busy_fleets(draw: st.DrawFn) -> ClusterSnapshot:
    states = st.sampled_from(
        [WorkerState.ROUTABLE] * 4 + [WorkerState.STARTING, WorkerState.SWITCHING]
    )
    fleet = tuple(
        replace(worker, state=draw(states), since_s=10_000.0 - draw(st.floats(0.0, 100.0)))
        for worker in workers(*(draw(st.integers(0, 8)) for _ in SPLIT_ROLES))
    )
    signals = {
        **quiet_signals(10_000.0),
        Role.DECODE: RoleSignals(measured_at_s=10_000.0, num_running=draw(st.integers(0, 900))),
        Role.PREFILL: RoleSignals(
            measured_at_s=10_000.0,
            num_waiting=draw(st.integers(0, 90)),
            waiting_tokens=draw(st.floats(0.0, 1e5)),
        ),
    }
    if draw(st.integers(0, 5)) == 0:
        signals.pop(draw(st.sampled_from(SPLIT_ROLES)))
    traffic = (image_traffic(draw(st.floats(0.0, 60.0))), text_traffic(draw(st.floats(0.0, 60.0))))
    return snapshot(10_000.0, fleet, traffic, signals=signals)


def assigned(fleet: tuple[WorkerStatus, ...]) -> Counter[Lane]:
    return Counter(Lane(w.group, w.role) for w in fleet if not w.leaving)


def excess(rules: PlannerPolicy, counts: Counter[Lane]) -> tuple[float, ...]:
    """Workers by which each guard is broken."""
    return tuple(
        max(
            0.0,
            guard.least * counts[guard.below] - counts[guard.above],
            counts[guard.above] - guard.most * counts[guard.below] if guard.most < inf else 0.0,
        )
        for guard in rules.guards
    )


def after_each_phase(seen: ClusterSnapshot, decided: Plan) -> list[Counter[Lane]]:
    """The assigned workers before the plan, after its switches, its removals, its starts."""
    counts = assigned(seen.workers)
    phases = [counts.copy()]
    for kind in (SwitchRole, RemoveWorker, AddWorkers):
        for action in decided.actions:
            if not isinstance(action, kind):
                continue
            match action:
                case SwitchRole():
                    counts[action.source] -= 1
                    counts[action.target] += 1
                case RemoveWorker() if not action.gave_up:
                    counts[action.lane] -= 1
                case AddWorkers():
                    counts[action.lane] += action.count
        phases.append(counts.copy())
    return phases


@given(busy_fleets(), guarded_policies())
@settings(max_examples=150)
def test_no_plan_breaks_a_guard_or_breaks_it_further(
    seen: ClusterSnapshot, rules: PlannerPolicy
) -> None:
    phases = after_each_phase(seen, plan(seen, rules))
    broken = [excess(rules, counts) for counts in phases]
    for before, after in pairwise(broken):
        assert all(b <= a + 1e-6 for a, b in zip(before, after, strict=True)), phases


@given(
    guarded_policies(narrow=False),
    st.lists(st.tuples(st.floats(0.0, 40.0), st.floats(0.0, 60.0)), min_size=4, max_size=20),
)
@settings(max_examples=40)
def test_guards_hold_at_every_tick_while_demand_jumps(
    rules: PlannerPolicy, loads: list[tuple[float, float]]
) -> None:
    """Also for the workers that serve: switches take a tick in this cluster, starts three."""
    rules = replace(rules, fixed_pool=False)
    cluster = PretendCluster(policy=rules, start_ticks=3)
    for images, texts in loads:
        cluster.tick(image_traffic(images), text_traffic(texts))
        assert keeps(rules.guards, assigned(cluster.fleet))


@given(
    st.lists(st.tuples(st.floats(0.0, 30.0), st.floats(0.0, 90.0)), min_size=4, max_size=20),
    st.sampled_from([0.5, 1.0]),
)
@settings(max_examples=30)
def test_serving_workers_keep_the_guard_while_roles_switch(
    loads: list[tuple[float, float]], least: float
) -> None:
    rules = policy(
        fixed_pool=True,
        ratios=(RatioGuard(numerator=Role.DECODE, denominator=Role.PREFILL, least=least),),
    )
    cluster = PretendCluster(policy=rules, fleet=workers(5, 4, 4))
    for images, texts in loads:
        cluster.tick(image_traffic(images), text_traffic(texts))
        serving = tuple(w for w in cluster.fleet if w.state is WorkerState.ROUTABLE)
        for reached in (serving, cluster.fleet):  # before and after the switches have ended
            assert keeps(rules.guards, assigned(reached))


@given(guarded_policies(), st.lists(st.integers(0, 12), min_size=3, max_size=3))
def test_least_split_above_and_greatest_below_keep_every_guard(
    rules: PlannerPolicy, counts: list[int]
) -> None:
    start = dict(zip((ENCODE, PREFILL, DECODE), counts, strict=True))
    up = raised(start, rules.guards, dict.fromkeys(start, 500))
    down = lowered(start, rules.guards)
    assert keeps(rules.guards, down)
    assert all(down[lane] <= start[lane] for lane in start)
    if up is not None:
        assert keeps(rules.guards, up)
        assert all(up[lane] >= start[lane] for lane in start)


def test_guard_that_fixes_a_ratio_still_lets_the_fleet_grow_switch_and_shrink() -> None:
    equal = policy(
        ratios=(RatioGuard(numerator=Role.DECODE, denominator=Role.PREFILL, least=1.0, most=1.0),),
        damping=DampingPolicy(shrink_window_s=60.0),
    )
    cluster = PretendCluster(policy=equal, fleet=workers(1, 1, 1))
    cluster.run(20, text_traffic(60.0))
    high = cluster.tick(text_traffic(60.0))
    assert high.target(Role.PREFILL) == high.target(Role.DECODE) > 2
    low = cluster.run(60, text_traffic(1.0))[-1]
    assert low.target(Role.PREFILL) == low.target(Role.DECODE) == 1


def test_guard_is_kept_where_the_budget_cuts() -> None:
    rules = policy(ratios=(HALF_AS_MANY,), gpu_budget=9)
    decided = plan(snapshot(10.0, (), (text_traffic(900.0, output=5.0),)), rules)
    assert decided.total <= 9
    assert decided.target(Role.DECODE) >= decided.target(Role.PREFILL) / 2


def test_guard_cuts_a_need_where_the_other_role_is_at_its_maximum() -> None:
    rules = policy(
        ratios=(RatioGuard(numerator=Role.PREFILL, denominator=Role.DECODE, most=1.0),),
        roles={**policy().roles, Role.DECODE: Bounds(least=1, most=2)},
    )
    decided = plan(snapshot(10.0, (), (text_traffic(300.0, output=5.0),)), rules)
    assert decided.target(Role.PREFILL) == decided.target(Role.DECODE) == 2


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"least": 3.0, "most": 1.0}, "ratio.least: want at most ratio.most"),
        ({"least": -1.0}, "ratio.least: want a number >= 0"),
        ({"least": float("nan")}, "ratio.least"),
        ({"most": 0.0}, "ratio.most: want a number > 0"),
        ({"denominator": Role.PREFILL}, "ratio.denominator: want another role"),
        ({"numerator": Role.ALL}, "ratio.numerator: want one of encode, prefill, decode"),
    ],
)
def test_impossible_guard_is_refused_by_its_field(fields: dict[str, object], told: str) -> None:
    guard: dict[str, object] = {"numerator": Role.PREFILL, "denominator": Role.DECODE}
    with pytest.raises(ValueError, match=told):
        RatioGuard(**{**guard, **fields})  # type: ignore[arg-type]


def test_guards_that_contradict_each_other_or_the_bounds_are_refused() -> None:
    twice = RatioGuard(numerator=Role.PREFILL, denominator=Role.DECODE, least=2.0)
    back = RatioGuard(numerator=Role.DECODE, denominator=Role.PREFILL, least=1.0)
    with pytest.raises(ValueError, match="ratios: want guards that some split"):
        policy(ratios=(twice, back))
    with pytest.raises(ValueError, match="minima and ratios need 4 workers, the pool allows 3"):
        policy(ratios=(twice,), pool=Bounds(least=0, most=3))
