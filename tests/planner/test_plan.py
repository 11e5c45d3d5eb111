"""Decisions by example: a situation and its outcome."""

from dataclasses import replace

import pytest

from epidote_core.modality import Modality
from epidote_core.roles import Role, WorkerState
from epidote_planner.correction import observe_margins
from epidote_planner.damping import lasting_need
from epidote_planner.decision import (
    AddWorkers,
    Constraint,
    MoveExperts,
    Plan,
    Reason,
    RemoveWorker,
    SwitchRole,
)
from epidote_planner.experts import ExpertLoad, ExpertMove
from epidote_planner.fakes import (
    PretendCluster,
    image_traffic,
    policy,
    quiet_signals,
    snapshot,
    text_traffic,
    workers,
)
from epidote_planner.lane import SPLIT_ROLES
from epidote_planner.memory import PlannerMemory
from epidote_planner.planner import plan
from epidote_planner.policy import Bounds, ModalityGroup, RatioGuard
from epidote_planner.snapshot import RoleSignals, WorkerStatus


def switches(decided: Plan) -> list[SwitchRole]:
    return [action for action in decided.actions if isinstance(action, SwitchRole)]


def starts(decided: Plan) -> int:
    return sum(action.count for action in decided.actions if isinstance(action, AddWorkers))


def removals(decided: Plan) -> list[RemoveWorker]:
    return [action for action in decided.actions if isinstance(action, RemoveWorker)]


def test_demand_from_nothing_starts_every_role() -> None:
    decided = plan(snapshot(10.0, (), (image_traffic(10.0),)), policy())
    assert all(decided.target(role) >= 1 for role in SPLIT_ROLES)
    assert starts(decided) == decided.total
    assert decided.explanation.reason is Reason.DEMAND_ROSE


def test_surplus_encoder_becomes_the_missing_decoder() -> None:
    signals = {
        **quiet_signals(10.0),
        Role.DECODE: RoleSignals(measured_at_s=10.0, num_running=300, num_waiting=40),
    }
    before = snapshot(10.0, workers(6, 3, 1), (image_traffic(4.0),), signals=signals)
    decided = plan(before, policy())
    assert {(s.source.role, s.target.role) for s in switches(decided)} <= {
        (Role.ENCODE, Role.DECODE),
        (Role.PREFILL, Role.DECODE),
    }
    assert len(switches(decided)) >= 2
    assert decided.target(Role.DECODE) >= 3


def test_worker_still_starting_is_reassigned_before_one_that_serves() -> None:
    fresh = replace(workers(1, 0, 0)[0], name="fresh", state=WorkerState.STARTING, since_s=0.0)
    signals = {
        **quiet_signals(10.0),
        Role.DECODE: RoleSignals(measured_at_s=10.0, num_running=200),
    }
    before = snapshot(10.0, (*workers(4, 3, 1), fresh), (image_traffic(4.0),), signals=signals)
    assert switches(plan(before, policy()))[0].worker == "fresh"


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


def test_switch_that_is_only_late_starts_no_worker_in_its_place() -> None:
    signals = {
        **quiet_signals(10.0),
        Role.DECODE: RoleSignals(measured_at_s=10.0, num_running=300, num_waiting=40),
    }
    settled = snapshot(10.0, workers(9, 3, 1), (image_traffic(2.0),), signals=signals)
    assert switches(plan(settled, policy()))
    moved = tuple(replace(worker, since_s=5.0) for worker in settled.workers)
    decided = plan(replace(settled, workers=moved), policy())
    assert not switches(decided)
    assert starts(decided) == 0


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


def test_a_spare_worker_that_fails_while_it_waits_for_the_shrink_window_is_not_replaced() -> None:
    """On GPUs that would be a node, for the seconds that are left of the window."""
    rules = policy(pool=Bounds(least=3, most=6))
    fleet = workers(1, 1, 2)
    calm = (image_traffic(0.01),)
    rested = plan(snapshot(1000.0, fleet, calm), rules)
    assert rested.explanation.reason is Reason.SHRINK_WINDOW
    dead = replace(fleet[-1], state=WorkerState.FAILED)
    seen = snapshot(1001.0, (*fleet[:-1], dead), calm)
    decided = plan(seen, rules, rested.memory)
    assert [action.worker for action in removals(decided)] == [dead.name]
    assert starts(decided) == 0
    later = plan(snapshot(1002.0, fleet[:-1], calm), rules, decided.memory)
    assert starts(later) == 0
    floor = plan(seen, replace(rules, pool=Bounds(least=4, most=6)), rested.memory)
    assert starts(floor) == 1, "the pool's minimum is kept"


def test_thousands_of_switches_in_one_plan_leave_every_worker_in_one_place() -> None:
    fleet = tuple(replace(w, num_running=i % 7) for i, w in enumerate(workers(3000, 0, 0)))
    decided = plan(snapshot(10.0, fleet, (text_traffic(60_000.0),)), policy(fixed_pool=True))
    moved = [switch.worker for switch in switches(decided)]
    assert len(moved) == len(set(moved)) == 2999
    assert decided.total == 3000
    busy = {worker.name: worker.num_running for worker in fleet}
    assert [busy[name] for name in moved] == sorted(busy[name] for name in moved)


def test_stale_role_metrics_hold_that_role_only() -> None:
    signals = {**quiet_signals(1000.0), Role.ENCODE: RoleSignals(measured_at_s=10.0)}
    before = snapshot(1000.0, workers(2, 2, 1), (image_traffic(60.0),), signals=signals)
    decided = plan(before, policy())
    assert decided.target(Role.ENCODE) == 2
    assert decided.target(Role.PREFILL) > 2
    assert [hold.reason for hold in decided.holds] == [Reason.METRICS_STALE]


def test_missing_traffic_holds_everything_and_is_not_zero_load() -> None:
    calm = replace(snapshot(1000.0, workers(5, 5, 5), ()), traffic_at_s=None)
    decided = plan(calm, policy(), PlannerMemory(at_s=990.0))
    assert decided.actions == ()
    assert decided.total == 15
    assert decided.explanation.reason is Reason.METRICS_MISSING


def test_dead_series_never_ratchets_a_target() -> None:
    cluster = PretendCluster(policy=policy())
    cluster.run(5, image_traffic(5.0))
    rising = cluster.tick(image_traffic(20.0))
    memory = rising.memory
    fleet = tuple(replace(worker, state=WorkerState.ROUTABLE) for worker in cluster.fleet)
    for tick in range(1, 200):
        now_s = cluster.now_s + 10.0 * tick
        dead = replace(snapshot(now_s, fleet, ()), traffic_at_s=cluster.now_s)
        decided = plan(dead, policy(), memory)
        memory = decided.memory
        if now_s - cluster.now_s > policy().damping.metrics_timeout_s:
            assert decided.actions == ()
    assert memory.modalities == rising.memory.modalities


def test_worker_that_was_killed_has_not_timed_out() -> None:
    dead = replace(workers(0, 1, 0)[0], name="dead", state=WorkerState.FAILED, since_s=0.0)
    late = replace(dead, name="late", state=WorkerState.STARTING)

    def reason(*lost: WorkerStatus) -> Reason:
        seen = snapshot(2000.0, (*workers(2, 2, 1), *lost), (image_traffic(30.0),))
        return plan(seen, policy()).explanation.reason

    assert reason(dead) is Reason.WORKER_FAILED
    assert reason(dead, late) is Reason.START_TIMED_OUT


def test_start_past_its_deadline_is_given_up_and_not_asked_for_again_at_once() -> None:
    stuck = replace(workers(0, 1, 0)[0], name="stuck", state=WorkerState.STARTING, since_s=0.0)
    before = snapshot(2000.0, (*workers(2, 2, 1), stuck), (image_traffic(30.0),))
    decided = plan(before, policy())
    assert removals(decided) == [
        RemoveWorker(worker="stuck", lane=removals(decided)[0].lane, gave_up=True)
    ]
    assert starts(decided) == 0
    assert decided.total == 5
    assert decided.explanation.reason is Reason.START_TIMED_OUT
    later = replace(before, now_s=2000.0 + 301.0, traffic_at_s=2301.0, workers=workers(2, 2, 1))
    again = plan(replace(later, roles=quiet_signals(2301.0)), policy(), decided.memory)
    assert starts(again) > 0


def test_workers_that_crash_on_start_are_replaced_after_the_back_off_and_not_at_once() -> None:
    memory, asked = None, []
    for tick in range(62):  # 610 s: two back-offs of 300 s
        now_s = 1000.0 + 10.0 * tick
        crashed = tuple(
            replace(w, name=f"{tick}-{w.name}", state=WorkerState.FAILED, since_s=now_s - 5.0)
            for w in workers(0, 0, 3 if asked and asked[-1] else 0)
        )
        seen = snapshot(now_s, (*workers(2, 2, 1), *crashed), (image_traffic(30.0),))
        decided = plan(seen, policy(), memory)
        memory = decided.memory
        asked.append(starts(decided))
    assert sum(count > 0 for count in asked) == 2


def test_worker_that_fails_after_long_service_is_replaced_at_once() -> None:
    old = replace(workers(0, 0, 1)[0], name="old", state=WorkerState.FAILED, since_s=0.0)
    seen = snapshot(5000.0, (*workers(2, 2, 1), old), (image_traffic(30.0),))
    assert starts(plan(seen, policy())) > 0


def test_constant_load_keeps_no_worker_for_a_rounding_error() -> None:
    cluster = PretendCluster(policy=policy())
    decided = cluster.run(120, image_traffic(16.0))[-1]
    needs = next(step.values for step in decided.trace if step.name == "budget")
    assert decided.total == sum(needs.values())


def test_lost_response_cache_is_planned_for_in_the_same_tick() -> None:
    memory = None
    for tick in range(1, 60):
        seen = snapshot(10.0 * tick, workers(9, 9, 3), (image_traffic(20.0),), cache_hits=0.8)
        memory = plan(seen, policy(), memory).memory
    kept = plan(
        snapshot(600.0, workers(2, 2, 1), (image_traffic(20.0),), cache_hits=0.8), policy(), memory
    )
    lost = plan(
        snapshot(600.0, workers(2, 2, 1), (image_traffic(20.0),), cache_hits=0.0), policy(), memory
    )
    assert lost.total > kept.total
    assert lost.explanation.reason is Reason.CACHE_LOST


def test_ratio_guard_raises_the_smaller_side() -> None:
    guarded = policy(
        ratios=(RatioGuard(numerator=Role.DECODE, denominator=Role.PREFILL, least=0.5),)
    )
    decided = plan(snapshot(10.0, (), (image_traffic(40.0),)), guarded)
    assert decided.target(Role.DECODE) >= decided.target(Role.PREFILL) / 2


def test_opposite_switch_waits_for_the_cooldown() -> None:
    rules = policy(fixed_pool=True)
    busy = {
        **quiet_signals(100.0),
        Role.DECODE: RoleSignals(measured_at_s=100.0, num_running=400),
    }
    fleet = workers(5, 2, 1)
    memory = PlannerMemory(at_s=90.0, last_switch_s={"default/decode>default/encode": 95.0})
    decided = plan(snapshot(100.0, fleet, (image_traffic(3.0),), signals=busy), rules, memory)
    assert all(s.source.role is not Role.ENCODE for s in switches(decided))


def test_worker_keeps_its_role_for_the_dwell() -> None:
    signals = {
        **quiet_signals(10.0),
        Role.DECODE: RoleSignals(measured_at_s=10.0, num_running=400),
    }
    young = workers(6, 6, 1, since_s=5.0)
    decided = plan(
        snapshot(10.0, young, (image_traffic(3.0),), signals=signals), policy(fixed_pool=True)
    )
    assert switches(decided) == []
    assert decided.explanation.reason in (Reason.COOLDOWN, Reason.BUDGET_BOUND)


def test_text_group_keeps_its_workers_while_images_burst() -> None:
    grouped = policy(
        groups=(
            ModalityGroup(name="text", modalities=(Modality.TEXT,)),
            ModalityGroup(name="media", modalities=(Modality.IMAGE, Modality.VIDEO)),
        )
    )
    decided = plan(snapshot(10.0, (), (text_traffic(5.0), image_traffic(20.0))), grouped)
    assert decided.target(Role.ENCODE, "text") == 0
    assert decided.target(Role.PREFILL, "text") >= 1
    assert decided.target(Role.PREFILL, "media") > decided.target(Role.PREFILL, "text")


def test_queue_of_one_group_preempts_a_worker_of_the_other_where_the_pool_is_full() -> None:
    grouped = policy(
        fixed_pool=True,
        groups=(
            ModalityGroup(name="text", modalities=(Modality.TEXT,)),
            ModalityGroup(name="media", modalities=(Modality.IMAGE,)),
        ),
    )
    fleet = tuple(
        replace(worker, group=group, name=f"{group}-{worker.name}")
        for group, counts in (("text", (0, 4, 2)), ("media", (2, 1, 1)))
        for worker in workers(*counts)
    )
    jammed = tuple(replace(w, num_waiting=200) if w.name == "media-p0" else w for w in fleet)
    seen = snapshot(10.0, jammed, (text_traffic(1.0), image_traffic(8.0)))
    moved = switches(plan(seen, grouped))
    assert any(s.source.group == "text" and s.target.group == "media" for s in moved)


def test_expert_move_comes_before_workers_and_only_if_it_pays() -> None:
    good = ExpertMove(name="even", num_moved=40, imbalance=1.1, migration_s=2.0)
    skewed = ExpertLoad(imbalance=2.0, expert_time_ratio=0.5, proposal=good)
    seen = replace(snapshot(10.0, workers(2, 2, 1), (image_traffic(20.0),)), experts=skewed)
    decided = plan(seen, policy())
    assert isinstance(decided.actions[0], MoveExperts)
    told = (
        "40 expert slots of each worker move in 2 s: imbalance 2.00→1.10, decode steps 30% shorter"
    )
    assert told in decided.explanation.text
    slow = replace(skewed, proposal=replace(good, imbalance=1.99, migration_s=600.0))
    assert not any(
        isinstance(a, MoveExperts) for a in plan(replace(seen, experts=slow), policy()).actions
    )


def test_skew_of_experts_counts_as_decode_capacity_lost() -> None:
    seen = snapshot(10.0, (), (image_traffic(60.0, output=600.0),))
    skewed = replace(seen, experts=ExpertLoad(imbalance=2.5, expert_time_ratio=0.6))
    assert plan(skewed, policy()).target(Role.DECODE) > plan(seen, policy()).target(Role.DECODE)


def test_missed_slo_adds_workers_that_no_model_asked_for() -> None:
    kept = PretendCluster(policy=policy())
    kept.run(60, image_traffic(20.0))
    missed = PretendCluster(policy=policy())
    missed.run(60, image_traffic(20.0), met=0.9)
    assert len(missed.fleet) > len(kept.fleet)


def test_role_without_traffic_may_go_to_zero_if_allowed() -> None:
    free = policy(
        roles={
            Role.ENCODE: Bounds(least=0),
            Role.PREFILL: Bounds(least=1),
            Role.DECODE: Bounds(least=1),
        }
    )
    cluster = PretendCluster(policy=free, fleet=workers(3, 2, 1))
    cluster.run(100, text_traffic(3.0))
    assert cluster.tick(text_traffic(3.0)).target(Role.ENCODE) == 0


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


def test_modality_that_fell_silent_gives_its_worker_back() -> None:
    free = policy(roles={**policy().roles, Role.ENCODE: Bounds(least=0)})
    cluster = PretendCluster(policy=free, fleet=workers(3, 2, 1))
    cluster.run(10, text_traffic(3.0), image_traffic(1.0))
    recent = cluster.run(60, text_traffic(3.0))[-1]  # 600 s of 900 s of silence
    assert recent.target(Role.ENCODE) == 1
    assert cluster.run(300, text_traffic(3.0))[-1].target(Role.ENCODE) == 0


def test_first_image_gets_an_encoder_by_a_switch_where_a_worker_is_spare() -> None:
    free = policy(roles={**policy().roles, Role.ENCODE: Bounds(least=0)})
    seen = snapshot(10.0, workers(0, 4, 2), (text_traffic(3.0), image_traffic(0.1)))
    decided = plan(seen, free)
    assert [s.target.role for s in switches(decided)] == [Role.ENCODE]
    assert starts(decided) == 0


def test_every_plan_tells_its_steps_and_its_reason_in_words() -> None:
    decided = plan(snapshot(10.0, workers(1, 1, 1), (image_traffic(10.0),)), policy())
    assert [step.name for step in decided.trace] == [
        "demand",
        "capacity",
        "load",
        "sizing",
        "budget",
        "damping",
        "assignment",
    ]
    assert decided.explanation.reason.value in decided.explanation.text
    assert decided.explanation.counterfactual in decided.explanation.text
