"""Workers that fail, or never come up: given up, and replaced when that makes sense."""

from dataclasses import replace

from epidote_core.roles import WorkerState
from epidote_planner.decision import Reason, RemoveWorker
from epidote_planner.fakes import (
    image_traffic,
    policy,
    quiet_signals,
    removals,
    snapshot,
    starts,
    workers,
)
from epidote_planner.planner import plan
from epidote_planner.policy import Bounds
from epidote_planner.snapshot import WorkerStatus


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
