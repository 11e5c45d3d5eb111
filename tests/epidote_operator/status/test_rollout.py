"""Rollouts: whose turn it is, with and without room."""

from dataclasses import replace

from epidote_core.roles import Role, WorkerState
from epidote_operator.spec.service_status import RolloutStatus
from epidote_operator.status.fleet import Fleet, FleetWorker, Unplaced
from epidote_operator.status.rollout import NO_ROOM_S, RolloutStep, next_move, no_room, progress
from epidote_planner.lane import Lane

FULL = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
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


def pending(why: str = FULL, *, since_s: float = 0.0) -> FleetWorker:
    return FleetWorker(
        name="w9",
        lane=D,
        state=WorkerState.STARTING,
        since_s=0.0,
        unplaced=Unplaced(since_s=since_s, why=why),
    )


def with_pending(new: Fleet, at_s: float = 0.0) -> Fleet:
    return replace(new, at_s=at_s, workers=(*new.workers, pending()))


def test_a_new_worker_that_no_node_has_room_for_has_an_old_one_leave() -> None:
    """Though the budget has room, or there is none."""
    move = next_move(OLD, with_pending(fleet()), WANTED, surge=1, room=9, full=FULL)
    assert move.step is RolloutStep.RETIRE
    assert move.worker is not None
    assert move.worker.lane == D
    leaving = replace(OLD, workers=(*OLD.workers[:3], replace(OLD.workers[3], is_leaving=True)))
    assert next_move(leaving, with_pending(fleet()), WANTED, surge=1, room=9, full=FULL).step is (
        RolloutStep.WAIT
    )


def test_one_that_starts_on_a_node_comes_up_before_an_old_one_leaves() -> None:
    comes_up = fleet(E, state=WorkerState.STARTING)
    move = next_move(OLD, with_pending(comes_up), WANTED, surge=2, room=9, full=FULL)
    assert move.step is RolloutStep.WAIT


def test_the_scheduler_has_some_seconds_and_is_asked_about_room_alone() -> None:
    new = Fleet(at_s=100.0, workers=(pending(since_s=100.0 - NO_ROOM_S),))
    assert FULL in no_room(new, 0.0)
    assert no_room(new, 96.0) == "", "somebody has just left, or come up"
    late = Fleet(at_s=100.0, workers=(pending(since_s=96.0),))
    assert no_room(late, 0.0) == ""
    nowhere = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    assert no_room(Fleet(at_s=999.0, workers=(pending(nowhere),)), 0.0) == "", "room would not help"


def test_a_last_worker_leaves_only_where_the_others_can_stand_in_until_the_shift() -> None:
    """Four places for three roles: the old ones go down to one, which serves every stage."""
    stages = frozenset({Role.ENCODE, Role.PREFILL, Role.DECODE})
    last = replace(fleet(E, P, D), stages=stages)
    wanted = {E: 1, P: 1, D: 1}
    move = next_move(last, with_pending(fleet(D)), wanted, surge=1, room=9, full=FULL)
    assert (move.step, move.worker) == (RolloutStep.RETIRE, last.workers[0])
    assert "others of the old revision serve its role as well" in move.why
    bare = replace(last, workers=last.workers[1:])
    assert next_move(bare, with_pending(fleet(D)), wanted, surge=1, room=9, full=FULL).step is (
        RolloutStep.WAIT
    ), "nobody stands in yet"
    stands_in = replace(last.workers[1], said=Lane("default", Role.ALL))
    alone = replace(last, workers=(stands_in, last.workers[2]))
    move = next_move(alone, with_pending(fleet(D, E)), wanted, surge=1, room=9, full=FULL)
    assert move.step is RolloutStep.RETIRE
    too_few = next_move(last, with_pending(fleet()), wanted, surge=1, room=9, full=FULL)
    assert too_few.step is RolloutStep.WAIT
    assert "has one worker left, and none leaves" in too_few.why


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


def test_those_who_drain_have_their_time_before_a_rollout_has_failed() -> None:
    def at(now_s: float, before: RolloutStatus | None, **now: float) -> RolloutStatus:
        return progress(
            before,
            revision="b",
            wanted=WANTED,
            ready=1,
            old=4,
            deadline_s=60.0,
            now_s=now_s,
            **now,
        )

    begun = at(1000.0, None)
    assert not at(1150.0, begun, leaves_s=120.0).failed
    assert at(1181.0, begun, leaves_s=120.0).failed
