"""How many workers there are: growth at once, shrinking after a window, inside the budget."""

from dataclasses import replace

import pytest

from epidote_core.roles import Role, WorkerState
from epidote_planner.correction import observe_margins
from epidote_planner.damping import lasting_need
from epidote_planner.decision import Constraint, Reason
from epidote_planner.fakes import (
    PretendCluster,
    image_traffic,
    policy,
    quiet_signals,
    removals,
    snapshot,
    starts,
    text_traffic,
    workers,
)
from epidote_planner.planner import plan
from epidote_planner.policy import Bounds
from epidote_planner.snapshot import RoleSignals


def test_growth_is_at_once_and_shrinking_waits_for_the_window() -> None:
    cluster = PretendCluster(policy=policy())
    cluster.run(20, image_traffic(5.0))
    before = len(cluster.fleet)
    assert starts(cluster.tick(image_traffic(40.0))) > 0
    cluster.run(5, image_traffic(40.0))
    high = len(cluster.fleet)
    assert high > before
    low = cluster.run(20, image_traffic(5.0))  # 200 s of a window of 300 s
    assert not any(removals(decided) for decided in low)
    cluster.run(60, image_traffic(5.0))
    assert len(cluster.fleet) < high


def test_planner_without_memory_keeps_the_fleet_it_finds_for_a_window() -> None:
    cluster = PretendCluster(policy=policy(), fleet=workers(6, 6, 6))
    early = cluster.run(25, image_traffic(2.0))  # 250 s of a window of 300 s
    assert not any(removals(decided) for decided in early)
    cluster.run(20, image_traffic(2.0))
    assert len(cluster.fleet) < 18


@pytest.mark.parametrize(
    ("need", "error", "reserve", "wanted"),
    [
        (5.0, 1.0, 0.25, 6.0),  # no peak: the forecast
        (8.0, 1.0, 1.0, 8.0),  # nothing learnt yet: in full
        (8.0, 1.0, 0.25, 6.5),  # a usual peak where hours went well
        (8.0, 0.0, 0.25, 8.0),  # forecasts never erred: news
        (16.0, 1.0, 0.25, 13.75),  # far over any usual peak: only 3 of 10 are discounted
    ],
)
def test_usual_peaks_count_by_the_reserve_and_unusual_ones_in_full(
    need: float, error: float, reserve: float, wanted: float
) -> None:
    assert lasting_need(need, 6.0, error, reserve) == pytest.approx(wanted)


def test_shed_requests_count_as_missed_when_the_reserve_is_learnt() -> None:
    calm = snapshot(10.0, (), (), met=1.0)
    served = observe_margins(calm, {}, 10.0, policy())
    turned_away = observe_margins(calm, {}, 10.0, policy(), shed_ratio=0.3)
    assert turned_away["reserve"] > 1.0 > served["reserve"]
    assert turned_away["ttft"] == served["ttft"]  # the model has not erred


def test_budget_is_never_exceeded_and_the_counterfactual_says_what_it_cost() -> None:
    tight = policy(gpu_budget=16, gpus_per_worker=2)
    decided = plan(snapshot(10.0, workers(2, 3, 1), (image_traffic(60.0),)), tight)
    assert decided.total <= 8
    assert decided.explanation.binding is Constraint.GPU_BUDGET
    assert decided.explanation.reason is Reason.BUDGET_BOUND
    assert "Without the GPU budget" in decided.explanation.counterfactual


def test_pods_that_still_drain_hold_their_gpus_against_the_budget() -> None:
    leaving = tuple(
        replace(worker, name=f"gone-{worker.name}", state=WorkerState.DRAINING, leaving=True)
        for worker in workers(1, 1, 2)
    )
    seen = snapshot(10.0, (*workers(2, 1, 1), *leaving), (image_traffic(30.0),))
    assert starts(plan(seen, policy(gpu_budget=8))) == 0
    assert starts(plan(seen, policy(gpu_budget=10))) == 2
    freed = replace(seen, workers=workers(2, 1, 1))
    assert starts(plan(freed, policy(gpu_budget=8))) == 4


@pytest.mark.parametrize(
    ("pool", "told"),
    [
        (Bounds(least=6, most=6), "their number is not the planner's to choose"),
        (Bounds(least=6, most=9), "the pool's minimum keeps 6"),
    ],
)
def test_workers_that_the_pool_keeps_do_not_wait_for_the_shrink_window(
    pool: Bounds, told: str
) -> None:
    quiet = snapshot(10.0, workers(2, 2, 2), (image_traffic(0.01),))
    explanation = plan(quiet, policy(pool=pool)).explanation
    assert explanation.reason is not Reason.SHRINK_WINDOW
    assert explanation.binding is Constraint.MINIMUM
    assert told in explanation.counterfactual
    surplus = plan(quiet, policy(pool=Bounds(least=5, most=9))).explanation
    assert surplus.binding is Constraint.DAMPING


def test_constant_load_keeps_no_worker_for_a_rounding_error() -> None:
    cluster = PretendCluster(policy=policy())
    decided = cluster.run(120, image_traffic(16.0))[-1]
    needs = next(step.values for step in decided.trace if step.name == "budget")
    assert decided.total == sum(needs.values())


def test_workers_started_beside_a_surplus_that_cannot_switch_stay_for_the_window() -> None:
    """Decoders with answers of 3000 tokens take longer to drain than a worker to start."""
    queue = RoleSignals(measured_at_s=10.0, num_waiting=80, waiting_tokens=160_000.0)
    answers = text_traffic(1.0, output=3000.0)
    first = snapshot(
        10.0, workers(1, 1, 8), (answers,), signals={**quiet_signals(10.0), Role.PREFILL: queue}
    )
    decided = plan(first, policy())
    assert starts(decided) > 0
    fresh = tuple(
        replace(w, name=f"new-{w.name}", state=WorkerState.STARTING, since_s=10.0)
        for w in workers(0, starts(decided), 0)
    )
    for tick in range(2, 31):  # 290 s of a window of 300 s
        later = snapshot(10.0 * tick, (*first.workers, *fresh), (answers,))
        decided = plan(later, policy(), decided.memory)
        assert not removals(decided)
