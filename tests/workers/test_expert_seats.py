"""Where a worker's experts lie: what it was told reaches the engine, and shows when it is done."""

import asyncio
from pathlib import Path

import pytest

from epidote_core.errors import InvalidRequest
from epidote_core.expert_placement import Placement, placement_digest
from epidote_core.roles import Role
from epidote_engine.settings import EngineConfig
from epidote_workers import status_board
from epidote_workers.expert_seats import RETELL_S, ExpertSeats
from epidote_workers.fake_fleet import fleet_of, pretend
from epidote_workers.fakes import FakeEngine
from epidote_workers.in_process_fleet import until
from epidote_workers.transfer.shared_pool import SharedMemoryAllocator

FIRST: Placement = ((0, 1, 2, 3, 0, 1),) * 2
WANTED: Placement = ((3, 2, 1, 0, 0, 1), (0, 1, 2, 3, 3, 3))
EXPERTS = {"expert_parallel": True, "num_redundant_experts": 2}


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def engine():
    config = EngineConfig(model="pretend", num_kv_blocks=4, num_media_rows=4, **EXPERTS)
    allocator = SharedMemoryAllocator()
    yield FakeEngine(config, allocator.allocate)
    allocator.close()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def seats(clock):
    return ExpertSeats(2, clock)


def test_a_move_counts_once_all_of_it_is_in_force(engine, seats, clock):
    assert seats.look(engine).placement == FIRST
    seats.place(engine, WANTED)
    first = seats.look(engine)
    assert first.is_moving
    assert first.placement == (WANTED[0], FIRST[1])
    assert first.num_moves == 0
    clock.now_s += 12.0
    done = seats.look(engine)
    assert not done.is_moving
    assert done.digest == done.target == placement_digest(WANTED)
    assert done.num_moves == 1
    assert done.slot_s == pytest.approx(12.0 / 6)  # four slots of one layer, two of the other
    assert seats.look(engine) == done


def test_the_same_order_again_changes_nothing(engine, seats):
    seats.place(engine, FIRST)
    assert seats.look(engine).num_moves == 0
    assert not seats.look(engine).is_moving


def test_what_the_engine_refuses_is_told_to_who_asked_and_in_the_status(engine, seats):
    with pytest.raises(InvalidRequest, match="expert 1 has no slot"):
        seats.place(engine, ((0, 2, 3, 0, 0, 0),) * 2)
    seen = seats.look(engine)
    assert "expert 1 has no slot" in seen.refusal
    assert seen.placement == FIRST
    assert seen.is_moving


def test_an_order_before_there_are_weights_holds_when_they_come(engine, seats):
    engine.set_role(Role.ENCODE)
    seats.place(engine, WANTED)
    assert seats.look(engine) is None
    engine.set_role(Role.DECODE)
    seats.look(engine)
    assert engine._moving == WANTED


def test_an_order_that_got_lost_is_repeated_after_a_while(engine, seats, clock):
    engine.moves_experts = False
    seats.want(WANTED)
    seats.look(engine)
    engine._moving = None
    clock.now_s += RETELL_S / 2
    seats.look(engine)
    assert engine._moving is None
    clock.now_s += RETELL_S / 2
    seats.look(engine)
    assert engine._moving == WANTED


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(status_board, "EXPERTS_EVERY_S", 0.02)
    monkeypatch.setattr(status_board, "MOVES_EVERY_S", 0.02)


def test_every_worker_of_a_fleet_is_told_and_clients_see_it_done(
    tmp_path: Path, often: None
) -> None:
    async def run() -> None:
        roles = {"a": Role.DECODE, "b": Role.PREFILL, "e": Role.ENCODE}
        async with fleet_of(tmp_path, config=EXPERTS, **roles) as fleet:

            def placed(worker_id: str) -> Placement | None:
                views = {view.worker_id: view.experts for view in fleet.client.workers()}
                seen = views[worker_id]
                return None if seen is None else seen.placement

            await until(lambda: placed("a") == placed("b") == FIRST)
            await fleet.client.place_experts(WANTED)
            told = {v.worker_id: v.experts for v in fleet.client.workers() if v.experts}
            assert {seen.target for seen in told.values()} == {placement_digest(WANTED)}
            await until(lambda: placed("a") == placed("b") == WANTED)
            assert placed("e") is None  # it has no decoder now
            with pytest.raises(InvalidRequest, match="must have 2 layers"):
                await fleet.client.place_experts(WANTED[:1])
            assert pretend(fleet, "a").expert_placement() == WANTED

    asyncio.run(run())


def test_a_long_move_is_not_begun_again_while_it_comes_on(engine, seats, clock):
    seats.place(engine, WANTED)
    begun = []
    engine.place_experts = begun.append
    for _ in range(2):
        clock.now_s += RETELL_S - 1.0
        seats.look(engine)
    assert begun == []
    assert seats.look(engine).slot_s == pytest.approx(2 * (RETELL_S - 1.0) / 6)
