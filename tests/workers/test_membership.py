"""This file is about a worker's side of the register, with registers that fail."""

import asyncio
from dataclasses import replace

import pytest

from epidote_core.expert_placement import placement_digest
from epidote_core.roles import Role, WorkerState
from epidote_core.worker_view import WorkerView
from epidote_workers.fleet_view import Orders, Wish
from epidote_workers.membership import Membership

WISH = Wish(shape={Role.ALL: 1}, num_workers=1)
PLACEMENT = ((0, 1), (1, 0))


class PretendRegister:
    """Knows one worker or none; may be away."""

    def __init__(self) -> None:
        self.known: WorkerView | None = None
        self.away = False
        self.is_closing = False
        self.wishes: list[Wish | None] = []
        self.kept: list[bool] = []
        self.left: list[str] = []
        self.placement = None
        self.asked = 0
        self.told_experts = []

    def _orders(self, role: Role) -> Orders:
        digest = placement_digest(self.placement) if self.placement else ""
        return Orders(role=role, wish=replace(WISH, experts=digest), is_closing=self.is_closing)

    async def experts(self):
        self.asked += 1
        return self.placement

    async def register(self, view, *, wish, keeps_role, experts):
        self.told_experts.append(experts)
        self.wishes.append(wish)
        self.kept.append(keeps_role)
        self.known = view
        return self._orders(view.role if keeps_role else Role.DECODE)

    async def heartbeat(self, view, *, wish):
        if self.away:
            raise ConnectionError("restarting")
        return None if self.known is None else self._orders(view.role)

    async def leave(self, worker_id):
        if self.away:
            raise ConnectionError("restarting")
        self.left.append(worker_id)

    async def remove(self, worker_id):
        self.known = None


@pytest.fixture
def register():
    return PretendRegister()


@pytest.fixture
def member(register):
    view = WorkerView(
        worker_id="w", role=Role.PREFILL, state=WorkerState.ROUTABLE, epoch=1, address=""
    )
    return Membership(register, lambda: view)


async def test_a_new_worker_gets_its_role_from_the_register(register, member):
    assert await member.join() is Role.DECODE
    assert (register.wishes, register.kept) == ([None], [False])


async def test_a_restarted_register_is_told_role_and_wish(register, member):
    await member.join()
    register.known = None
    await member.beat()
    assert register.kept[-1] is True
    assert register.wishes[-1] == WISH
    assert register.known.role is Role.PREFILL


async def test_a_register_that_is_away_changes_nothing(register, member):
    await member.join()
    register.away = True
    await member.beat()
    assert await member.leave() is True
    register.away = False
    await member.beat()
    assert register.known is not None


async def test_a_leaving_worker_drains_only_if_the_fleet_goes_on(register, member):
    await member.join()
    assert await member.leave() is True
    assert register.left == ["w"]
    register.is_closing = True
    await member.beat()
    assert await member.leave() is False
    assert register.left == ["w"]


async def test_heartbeats_go_on_until_cancelled(register, member):
    await member.join()
    beating = asyncio.create_task(member.run())
    await asyncio.sleep(0.01)
    assert not beating.done()
    beating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beating


async def test_where_experts_shall_lie_is_asked_for_once_and_outlives_the_register(register):
    heard, has_started = [], False

    def place(placement):
        if has_started:
            heard.append(placement)
        return has_started

    view = WorkerView(
        worker_id="w", role=Role.PREFILL, state=WorkerState.ROUTABLE, epoch=1, address=""
    )
    member = Membership(register, lambda: view, place=place)
    register.placement = PLACEMENT
    await member.join()
    await member.beat()
    assert heard == []  # it still loads its weights: tried again
    has_started = True
    for _ in range(3):
        await member.beat()
    assert heard == [PLACEMENT]
    assert register.asked == 2
    register.known = None
    await member.beat()
    assert register.told_experts == [None, PLACEMENT]
