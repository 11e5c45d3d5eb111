"""This file is about the register of workers: joining, dying, leaving, switching; no Ray."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from epidote_core.errors import InvalidRequest, WorkerLost
from epidote_core.expert_placement import placement_digest
from epidote_core.roles import Role, WorkerState
from epidote_core.worker_view import WorkerView
from epidote_gateway.backend import SwitchOutcome
from epidote_workers.assignment import format_counts, parse_counts
from epidote_workers.fleet import RETRY_S, Fleet
from epidote_workers.fleet_view import Wish
from epidote_workers.roster import LOST_AFTER_S

SPLIT = "encode=1,prefill=1,decode=2"


class World:
    """Pretend workers, a fake clock, and the register under test."""

    def __init__(self, split: str = SPLIT, life: int = 1, acquaint_s: float = 0.0) -> None:
        shape = parse_counts(split)
        self.now_s = 0.0
        self.dead: set[str] = set()
        self.switches: list[tuple[str, Role]] = []
        self.in_switch: set[str] = set()
        self.gaps: list[str] = []
        self.fails: set[str] = set()
        self.scaled: list[int] = []
        self.fleet = Fleet(
            Wish(shape=shape, num_workers=sum(shape.values())),
            switch=self.switch,
            scale=self.scale,
            is_alive=lambda view: False if view.worker_id in self.dead else None,
            now=lambda: self.now_s,
            first_version=life * 1000,
            acquaint_s=acquaint_s,
        )

    async def scale(self, number: int) -> None:
        self.scaled.append(number)

    async def switch(self, worker: WorkerView, role: Role, *, deadline_s: float) -> SwitchOutcome:
        if worker.worker_id in self.dead:
            raise WorkerLost("no connection", worker_id=worker.worker_id)
        self.in_switch.add(worker.worker_id)
        serving = [
            v.role
            for v in self.fleet.view().workers
            if v.worker_id not in self.in_switch and v.state is WorkerState.ROUTABLE
        ]
        self.gaps += [s for s in ("encode", "prefill", "decode") if s not in serving]
        await asyncio.sleep(0)
        self.in_switch.discard(worker.worker_id)
        ok = worker.worker_id not in self.fails
        if ok:
            self.switches.append((worker.worker_id, role))
        return SwitchOutcome(
            worker_id=worker.worker_id,
            from_role=worker.role,
            to_role=role,
            ok=ok,
            epoch=worker.epoch + ok,
        )

    def join(self, worker_id: str, *, up: bool = True) -> Role:
        view = WorkerView(
            worker_id=worker_id,
            role=Role.ALL,
            state=WorkerState.STARTING,
            epoch=0,
            address="",  # not known before it listens
        )
        role = self.fleet.register(view, wish=None, keeps_role=False).role
        if up:
            self.beat(worker_id, role, epoch=1)
        return role

    def beat(self, worker_id: str, role: Role, *, epoch: int, wish: Wish | None = None):
        view = WorkerView(
            worker_id=worker_id,
            role=role,
            state=WorkerState.ROUTABLE,
            epoch=epoch,
            address=f"unix:/run/{worker_id}",
        )
        return self.fleet.heartbeat(view, wish=wish)

    def beat_all(self) -> None:
        for view in self.fleet.view().workers:
            self.beat(view.worker_id, view.role, epoch=view.epoch)

    def roles(self) -> str:
        return format_counts(Counter(view.role for view in self.fleet.view().workers))

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


async def full(split: str = SPLIT) -> World:
    world = World(split)
    for number in range(sum(parse_counts(split).values())):
        world.join(f"w{number}")
    await world.settle()
    assert world.roles() == split
    assert all(v.address == f"unix:/run/{v.worker_id}" for v in world.fleet.view().workers)
    assert not world.switches
    return world


def only(world: World, role: Role) -> str:
    return next(v.worker_id for v in world.fleet.view().workers if v.role is role)


async def test_workers_come_up_in_the_wished_split_without_any_switch():
    await full()


async def test_a_restarted_worker_takes_the_role_that_died():
    world = await full()
    for role in (Role.DECODE, Role.ENCODE, Role.PREFILL):
        world.fleet.remove(only(world, role))
        await world.settle()
        world.join(f"again-{role}")
        await world.settle()
        assert world.roles() == SPLIT


async def test_while_the_only_prefill_worker_restarts_a_decode_worker_stands_in():
    world = await full()
    world.dead.add(only(world, Role.PREFILL))
    world.fleet.tick()
    await world.settle()
    assert world.roles() == "encode=1,prefill=1,decode=1"
    assert world.join("again") is Role.DECODE
    await world.settle()
    assert world.roles() == SPLIT


async def test_two_losses_leave_one_worker_for_all_stages_until_they_return():
    world = await full("encode=1,prefill=1,decode=1")
    for role in (Role.PREFILL, Role.DECODE):
        world.fleet.remove(only(world, role))
    await world.settle()
    assert world.roles() == "all=1"
    world.join("again-1")
    world.join("again-2")
    await world.settle()
    assert world.roles() == "encode=1,prefill=1,decode=1"


async def test_a_silent_worker_is_removed_and_others_are_not():
    world = await full()
    silent = only(world, Role.DECODE)
    world.now_s += LOST_AFTER_S - 1
    for view in world.fleet.view().workers:
        if view.worker_id != silent:
            world.beat(view.worker_id, view.role, epoch=view.epoch)
    world.now_s += 2
    world.fleet.tick()
    assert silent not in {view.worker_id for view in world.fleet.view().workers}
    assert len(world.fleet.view().workers) == 3


async def test_a_gateways_report_removes_at_once():
    world = await full()
    lost = only(world, Role.DECODE)
    world.fleet.report_lost(lost)
    assert world.roles() == "encode=1,prefill=1,decode=1"
    world.fleet.report_lost(lost)  # again: nothing


async def test_a_report_about_a_live_process_is_not_believed():
    world = await full()
    world.fleet._is_alive = lambda view: True
    world.fleet.report_lost(only(world, Role.DECODE))
    assert world.roles() == SPLIT


async def test_roles_are_set_with_the_fewest_switches_and_again_with_none():
    world = await full()
    outcomes = await world.fleet.set_roles(parse_counts("encode=1,prefill=2,decode=1"))
    assert [(o.from_role, o.to_role, o.ok) for o in outcomes] == [(Role.DECODE, Role.PREFILL, True)]
    assert world.roles() == "encode=1,prefill=2,decode=1"
    assert await world.fleet.set_roles(parse_counts("encode=1,prefill=2,decode=1")) == []


async def test_no_stage_is_left_alone_on_the_way_through_all_splits_of_six():
    world = await full("encode=2,prefill=2,decode=2")
    for split in ("encode=1,prefill=1,decode=4", "encode=4,prefill=1,decode=1"):
        await world.fleet.set_roles(parse_counts(split))
        assert world.roles() == split
    assert world.gaps == []


@pytest.mark.parametrize("split", ["encode=1,prefill=1,decode=1", "encode=2,decode=2", "encode=4"])
async def test_impossible_roles_are_refused_and_nothing_switches(split):
    world = await full()
    with pytest.raises(InvalidRequest, match="roles"):
        await world.fleet.set_roles(parse_counts(split))
    assert world.switches == []


async def test_a_switch_that_was_rolled_back_is_reported_and_tried_again_later():
    world = await full()
    world.fails = {"w0", "w1", "w2", "w3"}
    (outcome,) = await world.fleet.set_roles(parse_counts("encode=1,prefill=2,decode=1"))
    assert not outcome.ok
    world.fails = set()
    world.now_s += RETRY_S - 1
    world.beat_all()
    world.now_s += 2
    world.fleet.tick()
    await world.settle()
    assert world.roles() == "encode=1,prefill=2,decode=1"


async def test_a_worker_that_dies_while_it_switches_is_reported_not_raised():
    world = await full()
    world.dead = {view.worker_id for view in world.fleet.view().workers}
    (outcome,) = await world.fleet.set_roles(parse_counts("encode=1,prefill=2,decode=1"))
    assert (outcome.ok, outcome.message) == (False, "no connection")


async def test_a_restarted_register_learns_wish_and_roles_from_its_workers():
    before = await full()
    await before.fleet.set_roles(parse_counts("encode=2,prefill=1,decode=1"))
    old = before.fleet.view()
    after = World(SPLIT, life=2)
    for view in old.workers:
        assert after.beat(view.worker_id, view.role, epoch=view.epoch) is None
        orders = after.fleet.register(view, wish=old.wish, keeps_role=True)
        assert orders.role is view.role
    await after.settle()
    assert after.roles() == "encode=2,prefill=1,decode=1"
    assert after.fleet.view().wish == old.wish
    assert after.switches == []


async def test_what_is_set_right_after_a_restart_rests_on_what_was_wished_before():
    before = await full()
    await before.fleet.set_num_workers(5)
    before.join("w4")
    await before.settle()
    await before.fleet.set_roles(parse_counts("encode=2,prefill=1,decode=2"))
    after = World(SPLIT, life=2, acquaint_s=0.05)
    setting = asyncio.create_task(
        after.fleet.set_roles(parse_counts("encode=1,prefill=1,decode=3"))
    )
    await asyncio.sleep(0)
    old = before.fleet.view()
    for view in old.workers:
        after.fleet.register(view, wish=old.wish, keeps_role=True)
    await setting  # not refused: five workers, although the service started with four
    assert after.roles() == "encode=1,prefill=1,decode=3"
    for view in after.fleet.view().workers:
        after.beat(view.worker_id, view.role, epoch=view.epoch, wish=old.wish)
    assert after.fleet.view().wish.counts == parse_counts("encode=1,prefill=1,decode=3")


async def test_an_old_heartbeat_does_not_undo_a_switch():
    world = await full()
    await world.fleet.set_roles(parse_counts("encode=1,prefill=2,decode=1"))
    worker, role = world.switches[0]
    world.beat(worker, Role.DECODE, epoch=1)
    assert next(v.role for v in world.fleet.view().workers if v.worker_id == worker) is role


async def test_scale_down_lets_others_take_the_stage_before_the_victim_drains():
    world = await full()
    victim = only(world, Role.PREFILL)
    await world.fleet.set_num_workers(3)
    assert world.scaled == [3]
    await world.fleet.leave(victim)
    views = {view.worker_id: view for view in world.fleet.view().workers}
    assert views[victim].state is WorkerState.DRAINING
    world.beat(victim, Role.PREFILL, epoch=1)  # still alive, still not for new work
    views = {view.worker_id: view for view in world.fleet.view().workers}
    assert views[victim].state is WorkerState.DRAINING
    world.fleet.remove(victim)
    await world.settle()
    assert world.roles() == "encode=1,prefill=1,decode=1"
    assert world.gaps == []


async def test_scale_up_grows_the_shape():
    world = await full()
    await world.fleet.set_num_workers(6)
    assert Counter([world.join("w4"), world.join("w5")]) == {Role.PREFILL: 1, Role.DECODE: 1}
    await world.settle()
    assert world.switches == []


async def test_scaling_through_two_workers_and_back_keeps_the_shape():
    world = await full()
    await world.fleet.set_num_workers(2)
    await asyncio.gather(world.fleet.leave("w2"), world.fleet.leave("w3"))
    for victim in ("w2", "w3"):
        world.fleet.remove(victim)
    await world.settle()
    assert world.roles() == "all=2"
    await world.fleet.set_num_workers(4)
    world.join("w4")
    world.join("w5")
    await world.settle()
    assert world.roles() == SPLIT


async def test_zero_workers_are_refused():
    world = await full()
    with pytest.raises(InvalidRequest, match="at least 1"):
        await world.fleet.set_num_workers(0)


async def test_a_watcher_wakes_on_a_change_and_times_out_without_one():
    world = await full()
    version = world.fleet.view().version
    same = await world.fleet.watch(version, 0.01)
    assert same.version == version
    waiting = asyncio.create_task(world.fleet.watch(version, 5))
    await asyncio.sleep(0)
    world.fleet.report_lost("w0")
    changed = await waiting
    assert changed.version != version
    assert len(changed.workers) == 3
    at_once = await world.fleet.watch(12345, 5)  # another life's version
    assert at_once.version == world.fleet.view().version


async def test_one_worker_switched_by_hand_changes_the_wish():
    world = await full()
    worker = only(world, Role.DECODE)
    outcome = await world.fleet.switch_role(worker, Role.PREFILL, deadline_s=1)
    assert outcome.ok
    world.now_s += RETRY_S + 1
    world.beat_all()
    world.fleet.tick()
    await world.settle()
    assert world.roles() == "encode=1,prefill=2,decode=1"
    with pytest.raises(InvalidRequest, match="worker_id"):
        await world.fleet.switch_role("nobody", Role.PREFILL, deadline_s=1)


async def test_a_closing_register_switches_nothing():
    world = await full()
    world.fleet.close()
    await asyncio.gather(*(world.fleet.leave(f"w{n}") for n in range(4)))
    world.fleet.remove("w0")
    await world.settle()
    assert world.switches == []
    orders = world.beat("w1", Role.PREFILL, epoch=1)
    assert orders is not None
    assert orders.is_closing


async def test_a_worker_that_joins_later_is_told_where_experts_lie_also_by_another_register():
    placement = ((0, 1), (1, 0))
    world = World()
    world.join("a")
    await world.fleet.place_experts(placement)
    version = world.fleet.view().wish.version
    await world.fleet.place_experts(placement)  # again: nothing new
    assert world.fleet.view().wish.version == version
    joining = WorkerView(
        worker_id="b", role=Role.ALL, state=WorkerState.STARTING, epoch=0, address=""
    )
    orders = world.fleet.register(joining, wish=None, keeps_role=False)
    assert orders.wish.experts == placement_digest(placement)
    assert world.fleet.experts() == placement

    after = World(life=2)
    assert after.fleet.experts() is None
    after.fleet.register(joining, wish=orders.wish, keeps_role=True)  # it had not heard it yet
    assert after.fleet.experts() is None
    old = replace(joining, worker_id="a")
    after.fleet.register(old, wish=orders.wish, keeps_role=True, experts=placement)
    assert after.fleet.experts() == placement
