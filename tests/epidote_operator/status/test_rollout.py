"""Rollouts: whose turn it is, with and without room."""

from dataclasses import replace

from epidote_core.roles import Role, WorkerState
from epidote_operator.spec.service_status import RolloutStatus
from epidote_operator.status.fleet import Fleet, FleetWorker
from epidote_operator.status.rollout import RolloutStep, next_move, progress
from epidote_planner.lane import Lane

E, P, D = (Lane("default", role) for role in (Role.ENCODE, Role.PREFILL, Role.DECODE))
WANTED = {E: 1, P: 1, D: 2}


def fleet(*lanes: Lane, **changes: object) -> Fleet:
    workers = tuple(
        replace(
            FleetWorker(name=f"w{n}", lane=lane, state=WorkerState.ROUTABLE, since_s=0.0),
            **changes,  # type: ignore[arg-type]
        )
        for n, lane in enumerate(lanes)
    )
    return Fleet(at_s=0.0, workers=workers)


OLD = fleet(E, P, D, D)


def test_with_room_workers_start_a_few_at_a_time_one_for_each_lane_first() -> None:
    lanes = []
    for there in ((), (D,), (D, E)):
        move = next_move(OLD, fleet(*there), WANTED, surge=2, room=9)
        assert (move.step, move.count) == (RolloutStep.START, 1)
        lanes.append(move.lane)
    assert lanes == [D, E, P]
    last = next_move(OLD, fleet(D, E, P), {**WANTED, D: 4}, surge=2, room=9)
    assert (last.lane, last.count) == (D, 2)
    enough = fleet(D, E, state=WorkerState.STARTING)
    assert next_move(OLD, enough, WANTED, surge=2, room=7).step is RolloutStep.WAIT


def test_clients_move_when_everybody_is_there_and_not_before() -> None:
    assert next_move(OLD, fleet(E, P, D, D), WANTED, surge=1, room=0).step is RolloutStep.SHIFT
    assert next_move(OLD, fleet(E, P, D), WANTED, surge=1, room=1).step is RolloutStep.START


def test_without_room_an_old_worker_with_company_leaves_first() -> None:
    move = next_move(OLD, fleet(), WANTED, surge=1, room=0)
    assert move.step is RolloutStep.RETIRE
    assert move.worker is not None
    assert move.worker.lane == D


def test_the_last_worker_of_a_lane_never_leaves_before_the_shift() -> None:
    last = fleet(E, P, D)
    assert next_move(last, fleet(), WANTED, surge=1, room=0).step is RolloutStep.WAIT


def test_a_new_fleet_that_covers_every_lane_takes_over_where_there_is_no_room() -> None:
    last = fleet(E, P, D)
    assert next_move(last, fleet(E, P, D), WANTED, surge=1, room=0).step is RolloutStep.SHIFT


def test_a_new_fleet_that_nobody_can_tell_about_does_not_take_over() -> None:
    unknown = replace(fleet(E, P, D, D), is_known=False)
    assert next_move(OLD, unknown, WANTED, surge=1, room=0).step is not RolloutStep.SHIFT


def test_no_old_worker_leaves_while_nobody_can_tell_of_the_new_ones() -> None:
    unknown = replace(fleet(E, P), is_known=False)
    assert next_move(OLD, unknown, WANTED, surge=1, room=0).step is RolloutStep.WAIT


def test_a_rollout_has_failed_when_it_has_not_moved_for_its_deadline() -> None:
    def at(now_s: float, before: RolloutStatus | None, **now: object) -> RolloutStatus:
        seen = {"revision": "b", "wanted": WANTED, "ready": 1, "old": 4, **now}
        return progress(before, deadline_s=60.0, now_s=now_s, **seen)  # type: ignore[arg-type]

    begun = at(1000.0, None)
    assert not at(1060.0, begun).failed
    stuck = at(1061.0, begun)
    assert stuck.failed
    assert at(1061.0, begun, ready=2).progressed_at != begun.progressed_at
    assert not at(1062.0, stuck, old=3).failed, "one of the old ones left: it moves"
    assert not at(1062.0, stuck, revision="c").failed, "the owner tries something else"
