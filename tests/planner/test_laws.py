"""Laws that every plan keeps, whatever was observed (hypothesis)."""

import json
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from epidote_core.modality import Modality
from epidote_core.roles import Role, WorkerState
from epidote_planner.decision import AddWorkers, Plan, RemoveWorker, SwitchRole
from epidote_planner.distribution import Distribution
from epidote_planner.fakes import (
    PretendCluster,
    image_traffic,
    policy,
    snapshot,
    text_traffic,
    workers,
)
from epidote_planner.lane import SPLIT_ROLES, Lane
from epidote_planner.memory import PlannerMemory
from epidote_planner.planner import plan
from epidote_planner.policy import Bounds, DampingPolicy, PlannerPolicy
from epidote_planner.snapshot import (
    Attainment,
    CacheSignals,
    ClusterSnapshot,
    ModalityTraffic,
    RoleSignals,
    WorkerStatus,
)

tokens = st.floats(0.0, 4000.0)


@st.composite
def distributions(draw: st.DrawFn) -> Distribution:
    p50, p90, p99 = sorted(draw(st.tuples(tokens, tokens, tokens)))
    return Distribution(mean=draw(tokens), p50=p50, p90=p90, p99=p99)


@st.composite
def traffics(draw: st.DrawFn) -> ModalityTraffic:
    has_media = draw(st.booleans())
    return ModalityTraffic(
        modality=Modality.IMAGE if has_media else Modality.TEXT,
        arrival_rps=draw(st.floats(0.0, 200.0)),
        input_tokens=draw(distributions()),
        output_tokens=draw(distributions()),
        images=Distribution.constant(draw(st.floats(0.0, 9.0))) if has_media else Distribution(),
        image_tokens=draw(distributions()) if has_media else Distribution(),
    )


@st.composite
def fleets(draw: st.DrawFn, now_s: float, most: int = 24) -> tuple[WorkerStatus, ...]:
    count = draw(st.integers(0, most))
    states = st.sampled_from(
        [
            WorkerState.ROUTABLE,
            WorkerState.ROUTABLE,
            WorkerState.ROUTABLE,
            WorkerState.STARTING,
            WorkerState.SWITCHING,
            WorkerState.DRAINING,
            WorkerState.FAILED,
        ]
    )
    return tuple(
        WorkerStatus(
            name=f"w{index}",
            role=draw(st.sampled_from(SPLIT_ROLES)),
            state=draw(states),
            since_s=now_s - draw(st.floats(0.0, 2000.0)),
            num_running=draw(st.integers(0, 60)),
            num_waiting=draw(st.integers(0, 60)),
            leaving=draw(st.integers(0, 9)) == 0,
        )
        for index in range(count)
    )


@st.composite
def observations(draw: st.DrawFn, now_s: float = 10_000.0) -> ClusterSnapshot:
    traffic = {t.modality: t for t in draw(st.lists(traffics(), max_size=3))}
    age_s = st.sampled_from([0.0, 5.0, 500.0])
    seen_s = draw(st.one_of(st.none(), age_s))
    ratio = st.floats(0.0, 1.0)
    return ClusterSnapshot(
        now_s=now_s,
        workers=draw(fleets(now_s)),
        traffic=tuple(traffic.values()),
        traffic_at_s=None if seen_s is None else now_s - seen_s,
        roles={
            role: RoleSignals(
                measured_at_s=now_s - draw(age_s),
                num_waiting=draw(st.integers(0, 500)),
                waiting_tokens=draw(st.floats(0.0, 1e6)),
                num_running=draw(st.integers(0, 500)),
            )
            for role in SPLIT_ROLES
            if draw(st.integers(0, 9)) > 0
        },
        attainment=Attainment(
            measured_at_s=now_s,
            num_requests=draw(st.integers(0, 1000)),
            ttft_ratio=draw(ratio),
            tpot_ratio=draw(ratio),
        ),
        cache=CacheSignals(
            response_hit_ratio=draw(ratio), prefix_hit_ratio=draw(st.floats(0.0, 0.95))
        ),
    )


@st.composite
def policies(draw: st.DrawFn) -> PlannerPolicy:
    least = {role: draw(st.integers(0, 2)) for role in SPLIT_ROLES}
    return policy(
        roles={
            role: Bounds(least=low, most=low + draw(st.integers(1, 30)))
            for role, low in least.items()
        },
        pool=Bounds(least=0, most=sum(least.values()) + draw(st.integers(1, 40))),
        fixed_pool=draw(st.booleans()),
    )


def counted(seen: ClusterSnapshot) -> Counter[Lane]:
    return Counter(Lane(w.group, w.role) for w in seen.workers if not w.leaving)


@given(observations(), policies())
@settings(max_examples=100)
def test_no_worker_is_named_twice_and_every_named_one_exists(
    seen: ClusterSnapshot, rules: PlannerPolicy
) -> None:
    decided = plan(seen, rules)
    named = [
        action.worker for action in decided.actions if isinstance(action, SwitchRole | RemoveWorker)
    ]
    assert len(named) == len(set(named))
    assert set(named) <= {worker.name for worker in seen.workers}


@given(observations(), policies())
@settings(max_examples=100)
def test_growth_stays_inside_bounds_and_budget_even_while_it_happens(
    seen: ClusterSnapshot, rules: PlannerPolicy
) -> None:
    decided = plan(seen, rules)
    before = counted(seen)
    total = sum(before.values())
    for action in decided.actions:  # the pool after each action, in the plan's order
        if isinstance(action, RemoveWorker):
            total -= 1
        if isinstance(action, AddWorkers):
            total += action.count
            assert total <= rules.max_workers
    for lane, count in decided.targets.items():
        if count > before[lane]:
            assert count <= rules.bounds(lane).most


@given(observations(), policies())
@settings(max_examples=100)
def test_donor_never_drops_under_its_need(seen: ClusterSnapshot, rules: PlannerPolicy) -> None:
    decided = plan(seen, rules)
    needs = next(step.values for step in decided.trace if step.name == "budget")
    for action in decided.actions:
        if isinstance(action, SwitchRole):
            assert decided.targets[action.source] >= needs[str(action.source)]
        if isinstance(action, RemoveWorker) and not action.gave_up:
            assert decided.targets[action.lane] >= needs[str(action.lane)]


@given(observations(), policies())
@settings(max_examples=100)
def test_held_roles_are_left_alone(seen: ClusterSnapshot, rules: PlannerPolicy) -> None:
    decided = plan(seen, rules)
    held = {hold.lane for hold in decided.holds}
    for action in decided.actions:
        if isinstance(action, SwitchRole):
            assert not {action.source, action.target, None} & held
        if isinstance(action, AddWorkers):
            assert not {action.lane, None} & held


@given(observations(), policies())
@settings(max_examples=100)
def test_same_inputs_give_an_equal_plan_and_memory_survives_json(
    seen: ClusterSnapshot, rules: PlannerPolicy
) -> None:
    first = plan(seen, rules)
    assert plan(seen, rules) == first
    restored = PlannerMemory.from_json(json.loads(json.dumps(first.memory.to_json())))
    assert restored == first.memory


@given(st.lists(st.floats(0.0, 60.0), min_size=3, max_size=25), st.data())
@settings(max_examples=25)
def test_process_killed_between_ticks_changes_nothing(
    rates: list[float], data: st.DataObject
) -> None:
    """One cluster keeps its memory, the other gets it back from JSON at random ticks."""
    steady = PretendCluster(policy=policy(), fleet=workers(1, 1, 1))
    killed = PretendCluster(policy=policy(), fleet=workers(1, 1, 1))
    for rate in rates:
        if data.draw(st.booleans()) and killed.memory is not None:
            killed.memory = PlannerMemory.from_json(json.loads(json.dumps(killed.memory.to_json())))
        assert steady.tick(image_traffic(rate)) == killed.tick(image_traffic(rate))


@given(
    st.floats(0.1, 80.0),
    st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12)),
    st.integers(0, 5),
)
@settings(max_examples=25)
def test_constant_load_converges_and_then_every_plan_is_empty(
    rate: float, initial: tuple[int, int, int], start_ticks: int
) -> None:
    cluster = PretendCluster(policy=policy(), fleet=workers(*initial), start_ticks=start_ticks)
    cluster.run(120, image_traffic(rate))
    for decided in cluster.run(10, image_traffic(rate)):
        assert decided.actions == ()


def fixed_point(rate: float, images: float) -> Plan:
    cluster = PretendCluster(policy=policy())
    return cluster.run(40, image_traffic(rate, images=images))[-1]


@given(st.floats(0.1, 80.0), st.floats(1.0, 2.0), st.sampled_from([1.0, 2.0, 4.0]))
@settings(max_examples=20)
def test_more_load_never_means_fewer_workers_at_the_fixed_point(
    rate: float, factor: float, images: float
) -> None:
    assert fixed_point(rate * factor, images).total >= fixed_point(rate, images).total


@given(
    st.lists(st.floats(0.0, 120.0), min_size=5, max_size=40),
    st.integers(3, 14),
    st.integers(0, 30),
)
@settings(max_examples=40)
def test_pods_never_outgrow_the_budget_while_demand_jumps_and_removals_take_time(
    rates: list[float], gpus: int, removal_ticks: int
) -> None:
    hasty = DampingPolicy(shrink_window_s=20.0, dwell_s=5.0)
    cluster = PretendCluster(
        policy=policy(gpu_budget=gpus, damping=hasty), start_ticks=3, removal_ticks=removal_ticks
    )
    for rate in rates:
        cluster.tick(image_traffic(rate))
        assert len(cluster.fleet) <= gpus


@given(
    st.lists(st.tuples(st.floats(0.0, 60.0), st.floats(0.0, 120.0)), min_size=8, max_size=60),
    st.integers(0, 6),
    st.sampled_from([60.0, 300.0]),
)
@settings(max_examples=40)
def test_pool_that_grew_is_not_shrunk_again_inside_the_window(
    loads: list[tuple[float, float]], start_ticks: int, window_s: float
) -> None:
    rules = policy(damping=DampingPolicy(shrink_window_s=window_s))
    cluster = PretendCluster(policy=rules, start_ticks=start_ticks)
    grown_s = float("-inf")
    for images, texts in loads:
        decided = cluster.tick(image_traffic(images), text_traffic(texts))
        kinds = {type(action) for action in decided.actions}
        if RemoveWorker in kinds:
            assert cluster.now_s - grown_s >= window_s
        if AddWorkers in kinds:
            grown_s = cluster.now_s


def test_switch_of_a_starting_worker_keeps_the_pool_size() -> None:
    seen = snapshot(10.0, workers(3, 3, 3), (image_traffic(10.0),))
    decided = plan(seen, policy(fixed_pool=True))
    assert decided.total == 9
    assert decided.target(Role.ENCODE) >= 1
