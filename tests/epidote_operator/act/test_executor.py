"""Plans carried out on a pretend fleet: order, failures, repetition."""

from dataclasses import replace

from epidote_core.roles import Role, WorkerState
from epidote_operator.act.executor import REDUNDANT_S, Executor
from epidote_operator.act.fakes import PretendHands
from epidote_operator.status.fleet import Fleet, FleetWorker
from epidote_planner.decision import (
    Action,
    AddWorkers,
    AdviseGateway,
    MoveExperts,
    RemoveWorker,
    SwitchRole,
)
from epidote_planner.experts import ExpertMove
from epidote_planner.lane import Lane

DECODE, ENCODE = Lane("default", Role.DECODE), Lane("default", Role.ENCODE)
PREFILL, ALL = Lane("default", Role.PREFILL), Lane("default", Role.ALL)
SWITCH = SwitchRole(worker="a", source=DECODE, target=ENCODE)


def worker(name: str, lane: Lane = DECODE, **changes: object) -> FleetWorker:
    made = FleetWorker(
        name=name,
        worker_id=name,
        lane=lane,
        said=lane,
        state=WorkerState.ROUTABLE,
        since_s=0.0,
        epoch=1,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def hands_with(*workers: FleetWorker) -> PretendHands:
    return PretendHands({member.name: member for member in workers})


async def run(hands: PretendHands, *actions: Action, at_s: float = 10.0) -> list[str]:
    """What was done in one run, without the calls that every run makes."""
    hands.calls.clear()
    executor = Executor(hands, drain_deadline_s=30.0, stuck_s=60.0)
    outcome = await executor.run(actions, hands.fleet(at_s))
    assert bool(outcome.failure) == bool(hands.broken)
    return [c for c in hands.calls if not c.startswith(("match_size", "advise 0"))]


async def test_a_switch_is_marked_before_it_is_asked_for_and_settled_at_the_next_look() -> None:
    hands = hands_with(worker("a"), worker("b"))
    assert await run(hands, SWITCH) == ["mark_switch a", "ask_switch a"]
    intent = hands.workers["a"].intent
    assert intent is not None
    assert (intent.epoch, intent.deadline_s) == (1, 40.0)
    assert await run(hands) == ["settle_switch a encode"]
    assert hands.workers["a"].serves
    assert await run(hands) == []


async def test_experts_that_cannot_be_moved_hold_up_nothing_else() -> None:
    hands = hands_with(worker("a"), worker("b"))
    hands.broken = {"move_experts"}
    move = MoveExperts(move=ExpertMove(name="p", num_moved=7, imbalance=1.1, migration_s=1.0))
    executor = Executor(hands, drain_deadline_s=30.0, stuck_s=60.0)
    outcome = await executor.run((move, SWITCH), hands.fleet(10.0))
    assert not outcome.failure
    assert [done.verb for done in outcome.done] == ["NotMoved", "SwitchRole"]
    assert "7 expert slots to p" in outcome.done[0].what
    assert "move_experts is broken" in outcome.done[0].what


async def test_a_mark_that_was_never_followed_by_asking_is_asked_now() -> None:
    hands = hands_with(worker("a"))
    hands.broken = {"ask_switch"}
    await run(hands, SWITCH)
    hands.broken = set()
    assert await run(hands) == ["ask_switch a"]


async def test_a_refused_switch_goes_back_to_the_old_role() -> None:
    hands = hands_with(worker("a"))
    hands.broken = {"ask_switch"}
    await run(hands, SWITCH)
    hands.broken = set()
    hands.refusals["a"] = "not drained"
    assert await run(hands) == ["settle_switch a decode"]
    assert hands.workers["a"].lane == DECODE


async def test_a_worker_that_hangs_beyond_its_deadline_is_replaced() -> None:
    hands = hands_with(worker("a"))
    await run(hands, SWITCH)
    hands.workers["a"] = replace(hands.workers["a"], state=WorkerState.DRAINING, said=DECODE)
    assert await run(hands, at_s=99.0) == []
    assert await run(hands, at_s=101.0) == ["remove_worker a now"]


async def test_a_switch_of_a_worker_that_switches_already_is_not_begun_again() -> None:
    hands = hands_with(worker("a"))
    await run(hands, SWITCH)
    hands.workers["a"] = replace(hands.workers["a"], state=WorkerState.SWITCHING)
    assert await run(hands, SWITCH) == []


async def test_a_worker_that_starts_is_only_assigned() -> None:
    hands = hands_with(worker("a", state=WorkerState.STARTING, said=None))
    assert await run(hands, SWITCH) == ["assign a encode"]


async def test_a_worker_in_a_role_of_its_own_choice_is_relabelled_not_fought() -> None:
    hands = hands_with(worker("a", said=ENCODE), worker("b", is_labelled=False))
    assert await run(hands) == ["settle_switch a encode", "settle_switch b decode"]


async def test_the_first_failure_ends_the_run() -> None:
    hands = hands_with(worker("a"), worker("b"))
    hands.broken = {"mark_switch"}
    done = await run(hands, SWITCH, AddWorkers(lane=DECODE, count=1))
    assert done == ["mark_switch a"]


async def test_a_worker_that_served_drains_and_one_that_never_came_up_does_not() -> None:
    hands = hands_with(worker("a"), worker("b", state=WorkerState.STARTING, said=None), worker("c"))
    done = await run(
        hands,
        RemoveWorker(worker="a", lane=DECODE),
        RemoveWorker(worker="b", lane=DECODE, gave_up=True),
        RemoveWorker(worker="unknown", lane=DECODE),
    )
    assert done == ["remove_worker a drain", "remove_worker b now"]
    assert await run(hands, RemoveWorker(worker="a", lane=DECODE)) == [], "it leaves already"


async def test_starts_beyond_the_budget_are_deferred_and_said_so() -> None:
    hands = hands_with(worker("a"))
    hands.room = 1
    executor = Executor(hands, drain_deadline_s=30.0)
    outcome = await executor.run((AddWorkers(lane=DECODE, count=3),), hands.fleet(0.0))
    assert outcome.deferred == ("3 decode: 1 now, the GPU budget is full",)
    assert "match_size 2" in hands.calls


async def test_pressure_is_taken_back_when_it_is_over() -> None:
    hands = hands_with(worker("a"))
    advice = AdviseGateway(cache_pressure=1.0, lossy_pressure=0.5, shed_ratio=0.25)
    executor = Executor(hands, drain_deadline_s=30.0)
    await executor.run((advice,), hands.fleet(0.0))
    await executor.run((), hands.fleet(1.0))
    assert [call for call in hands.calls if "advise" in call] == ["advise 0.25", "advise 0"]


async def test_a_fleet_nobody_can_tell_about_is_left_alone() -> None:
    hands = hands_with(worker("a", said=ENCODE))
    executor = Executor(hands, drain_deadline_s=30.0)
    await executor.run((), Fleet(at_s=0.0, workers=hands.fleet(0.0).workers, is_known=False))
    assert hands.calls == []


async def matched(hands: PretendHands, *actions: Action) -> bool:
    """Whether the register was told counts."""
    hands.calls.clear()
    await Executor(hands, drain_deadline_s=30.0).run(actions, hands.fleet(10.0))
    return any(call.startswith("match_size") for call in hands.calls)


async def test_the_register_hears_no_counts_while_a_worker_switches() -> None:
    """It would take that worker for one of its old role, and switch another one as well."""
    hands = hands_with(worker("a"), worker("b"), worker("c", ENCODE))
    assert await matched(hands)
    assert not await matched(hands, SWITCH), "just asked"
    assert not await matched(hands), "under way"
    assert await matched(hands), "written down at the look before"


async def test_the_register_hears_no_counts_while_one_leaves_and_another_is_missing() -> None:
    hands = hands_with(
        worker("a", is_leaving=True),
        worker("b"),
        worker("c", ENCODE, state=WorkerState.STARTING, said=None),
    )
    assert not await matched(hands)
    del hands.workers["a"]
    assert await matched(hands)


async def test_a_worker_on_its_way_unasked_is_waited_for_and_replaced_if_it_never_arrives() -> None:
    hands = hands_with(
        worker("a"), worker("b", state=WorkerState.DRAINING, adrift_since_s=5.0), worker("c")
    )
    executor = Executor(hands, drain_deadline_s=30.0, stuck_s=60.0)
    outcome = await executor.run((SWITCH,), hands.fleet(10.0))
    assert "b switches without having been asked" in outcome.failure
    assert hands.workers["a"].intent is None
    assert await run(hands, at_s=96.0) == ["remove_worker b now"]


async def test_a_worker_that_stands_in_for_others_is_left_to_its_register() -> None:
    hands = hands_with(worker("a", PREFILL, said=ALL), worker("b", ENCODE))
    assert await run(hands) == []
    assert not await matched(hands), "counts would make its role the wish"
    assert hands.workers["a"].lane == PREFILL


async def test_a_worker_that_stands_in_changes_its_assignment_and_not_what_it_serves() -> None:
    hands = hands_with(worker("a", PREFILL, said=ALL), worker("b", ENCODE))
    switch = SwitchRole(worker="a", source=PREFILL, target=DECODE)
    assert await run(hands, switch) == ["assign a decode"]


async def test_a_worker_that_its_register_forgot_is_taken_back_once() -> None:
    forgotten = {"said": ALL, "redundant_since_s": 10.0}
    hands = hands_with(worker("a", PREFILL, **forgotten), worker("b", ENCODE, **forgotten))
    assert await run(hands, at_s=9.0 + REDUNDANT_S) == []
    assert await run(hands, at_s=10.0 + REDUNDANT_S) == ["mark_switch a", "ask_switch a"]
    assert await run(hands, at_s=11.0 + REDUNDANT_S) == ["settle_switch a prefill"]


async def test_a_worker_that_is_needed_for_every_stage_again_stays() -> None:
    hands = hands_with(worker("a", PREFILL, said=ALL, redundant_since_s=10.0))
    hands.broken = {"ask_switch"}
    await run(hands, at_s=10.0 + REDUNDANT_S)
    hands.broken = set()
    hands.workers["a"] = replace(hands.workers["a"], redundant_since_s=None)
    assert await run(hands, at_s=11.0 + REDUNDANT_S) == ["settle_switch a prefill"]


async def test_a_forgotten_worker_waits_while_somebody_switches() -> None:
    hands = hands_with(
        worker("a", PREFILL, said=ALL, redundant_since_s=10.0),
        worker("b", state=WorkerState.DRAINING, adrift_since_s=25.0),
    )
    assert await run(hands, at_s=10.0 + REDUNDANT_S) == []


async def test_the_register_hears_no_counts_without_a_role_that_has_just_lost_its_last_worker() -> (
    None
):
    """It would take two workers for too few to share three stages, and turn both round."""
    dead = worker("d", state=WorkerState.FAILED)
    gave_up = RemoveWorker(worker="d", lane=DECODE, gave_up=True)
    hands = hands_with(dead, worker("e", ENCODE), worker("p", PREFILL))
    assert not await matched(hands, gave_up)
    hands = hands_with(dead, worker("e", ENCODE), worker("p", PREFILL))
    assert await matched(hands, gave_up, AddWorkers(lane=DECODE, count=1))
