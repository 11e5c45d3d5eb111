"""Local mode against a real gateway: the planner's switches reach workers, and are explained."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from epidote_core.roles import Role
from epidote_gateway.app import create_app
from epidote_gateway.fakes import FakeBackend, FakeRenderer
from epidote_operator.local import LocalOperator
from epidote_operator.spec.parsing import parse_service

SPEC = {
    "model": {"uri": "builtin://demo"},
    "pool": {"device": "Cpu", "minWorkers": 4, "maxWorkers": 4},
    "slo": {"ttftMilliseconds": 5000, "tpotMilliseconds": 500},
    "roles": [
        {"name": "Encode", "minWorkers": 2},
        {"name": "Decode", "minWorkers": 1, "maxWorkers": 1},
    ],
    "scaling": {"dwellSeconds": 0, "switchCooldownSeconds": 0, "shrinkWindowSeconds": 30},
}


@pytest.fixture
async def gateway() -> AsyncIterator[tuple[str, FakeBackend]]:
    backend = FakeBackend.of({Role.ENCODE: 1, Role.PREFILL: 1, Role.DECODE: 2})
    with socket.create_server(("127.0.0.1", 0)) as sock:
        config = uvicorn.Config(create_app(backend, FakeRenderer()), log_level="warning", ws="none")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        while not server.started:
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}", backend
        server.should_exit = True
        await serving


def counts(backend: FakeBackend) -> dict[Role, int]:
    found: dict[Role, int] = {}
    for worker in backend.workers():
        found[worker.role] = found.get(worker.role, 0) + 1
    return found


async def tick_until(operator: LocalOperator, good: Any) -> Any:
    now_s = 1000.0
    for _ in range(200):
        shown = await operator.tick(now_s)
        if good(shown.status):
            return shown
        now_s += 1.0
        await asyncio.sleep(0.02)
    raise AssertionError(f"never came true; last {shown.status.decisions[:1]}")


async def test_the_planners_switch_reaches_a_worker(gateway: tuple[str, FakeBackend]) -> None:
    url, backend = gateway
    async with LocalOperator.at(url, None, parse_service(SPEC)) as operator:
        first = await operator.tick(1000.0)
        assert first.decision is not None
        assert first.decision.reason == "MetricsMissing", "one scrape is no rate"
        shown = await tick_until(operator, lambda status: status.role_summary == "2/1/1")
    assert counts(backend) == {Role.ENCODE: 2, Role.PREFILL: 1, Role.DECODE: 1}
    reasons = [decision.reason for decision in shown.status.decisions]
    assert "DemandShifted" in reasons
    assert all(decision.counterfactual for decision in shown.status.decisions)


async def test_advisory_shows_the_switch_and_makes_none(gateway: tuple[str, FakeBackend]) -> None:
    url, backend = gateway
    spec = parse_service({**SPEC, "scaling": {**SPEC["scaling"], "mode": "Advisory"}})  # type: ignore[dict-item]
    async with LocalOperator.at(url, None, spec) as operator:
        shown = await tick_until(
            operator, lambda status: status.decisions[0].reason == "DemandShifted"
        )
        again = await operator.tick(5000.0)
    assert counts(backend)[Role.DECODE] == 2
    decision = shown.status.decisions[0]
    assert decision.actions
    assert not decision.carried_out
    assert again.status.decisions[0].at == decision.at, "the same advice is told once"
    condition = {c.type: c.reason for c in shown.status.conditions}
    assert condition["ScalingActive"] == "Advisory"


async def test_off_decides_nothing(gateway: tuple[str, FakeBackend]) -> None:
    url, backend = gateway
    spec = parse_service({**SPEC, "scaling": {"mode": "Off"}})
    async with LocalOperator.at(url, None, spec) as operator:
        for number in range(5):
            shown = await operator.tick(1000.0 + number)
    assert counts(backend)[Role.DECODE] == 2
    assert shown.status.decisions == ()
    assert {c.type: c.reason for c in shown.status.conditions}["ScalingActive"] == "ScalingDisabled"


async def test_a_gateway_that_is_away_is_told_and_waited_for() -> None:
    with socket.socket() as nobody:  # holds the port, and listens not
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        async with LocalOperator.at(url, None, parse_service(SPEC)) as operator:
            shown = await operator.tick(1000.0)
    conditions = {c.type: (c.status.value, c.reason) for c in shown.status.conditions}
    assert conditions["Ready"] == ("False", "GatewayUnreachable")
    assert conditions["ScalingActive"] == ("False", "FailedGetMetricsMissing")
    assert shown.tick.outcome.done == ()
