"""Why a request ended reaches the gateway unchanged: it decides whether it is tried again."""

import asyncio
from pathlib import Path

import pytest

from epidote_core.errors import ComputeFailed, InvalidRequest, WorkerLost
from epidote_core.generation import Route
from epidote_core.roles import Role
from epidote_engine.events import Fault, RequestFailed
from epidote_workers.fake_fleet import ask_for, fleet_of, pretend
from epidote_workers.in_process_fleet import until
from epidote_workers.request_failures import failure
from epidote_workers.rpc.errors import from_wire, to_wire


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.REQUEST, InvalidRequest),
        (Fault.COMPUTE, ComputeFailed),
        (Fault.STEP, WorkerLost),
    ],
)
def test_each_fault_keeps_its_kind_on_the_wire(fault: Fault, kind: type[Exception]) -> None:
    event = RequestFailed(request_id="r", message="no token can be chosen", fault=fault)
    error = from_wire(to_wire(failure(event, "w")))
    assert type(error) is kind
    assert str(error) == "no token can be chosen"
    if isinstance(error, WorkerLost):
        assert error.worker_id == "w"
        assert error.is_death
        assert not error.is_planned


@pytest.mark.parametrize("worker_id", ["p", "d"])
async def test_an_engine_that_dies_with_a_request_is_told_as_a_death(
    tmp_path: Path, worker_id: str
) -> None:
    async with fleet_of(tmp_path, p=Role.PREFILL, d=Role.DECODE) as fleet:

        def break_down() -> None:
            raise IndexError("index out of range")

        pretend(fleet, worker_id).step = break_down  # type: ignore[method-assign,assignment]
        stream = fleet.client.generate(ask_for("r"), Route(prefill="p", decode="d"))
        with pytest.raises(WorkerLost) as lost:
            _ = [chunks async for chunks in stream]
        assert lost.value.worker_id == worker_id
        assert lost.value.is_death


async def test_a_worker_that_leaves_as_planned_is_no_death(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, p=Role.PREFILL, d=Role.DECODE) as fleet:
        engine = pretend(fleet, "d")
        engine.hold_at_tokens = 5  # the stream outlasts the drain, however slow this is
        stream = fleet.client.generate(ask_for("r", tokens=400), Route(prefill="p", decode="d"))
        assert await anext(stream)
        await until(lambda: not engine.go.is_set())
        draining = asyncio.create_task(fleet.workers["d"].drain(deadline_s=60.0, grace_s=0.0))
        with pytest.raises(WorkerLost) as lost:
            _ = [chunks async for chunks in stream]
        engine.hold_at_tokens = None
        engine.go.set()
        await draining
        assert lost.value.is_planned
        assert not lost.value.is_death
