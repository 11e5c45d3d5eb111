"""What is decided reaches a real gateway and its real cache: pressure, shedding, policies."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from epidote_core.expert_placement import placement_digest
from epidote_core.roles import Role
from epidote_core.worker_view import ExpertsView
from epidote_gateway.app import create_app
from epidote_gateway.fakes import FakeBackend, FakeRenderer
from epidote_gateway.settings import GatewaySettings
from epidote_operator.act.hands import CannotAct
from epidote_operator.act.kubernetes_hands import Asked, KubernetesHands
from epidote_operator.cache_policies import CachePolicies
from epidote_operator.observe.gateway_client import GatewayClient, GatewayRefused
from epidote_planner.decision import AdviseGateway, MoveExperts
from epidote_planner.experts import ExpertMove

POLICY: dict[str, Any] = {"categories": [{"name": "default", "semantic": False}]}
NO_ADVICE = AdviseGateway(cache_pressure=0.0, lossy_pressure=0.0, shed_ratio=0.0)


@pytest.fixture(params=["with a cache", "without one"])
async def gateway(request: Any, tmp_path: Path) -> AsyncIterator[GatewayClient]:
    more: dict[str, str] = {}
    if request.param == "with a cache":
        file = tmp_path / "policy.yaml"
        file.write_text(json.dumps(POLICY))
        more = {"cache_policy": str(file), "cache_store": f"sqlite:{tmp_path}/answers.sqlite3"}
    backend = FakeBackend.of({Role.ENCODE: 1, Role.PREFILL: 1, Role.DECODE: 1})
    app = create_app(backend, FakeRenderer(), GatewaySettings(**more))  # type: ignore[arg-type]
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        while not server.started:
            await asyncio.sleep(0.01)
        client = GatewayClient(f"http://127.0.0.1:{sock.getsockname()[1]}")
        client.has_cache = bool(more)  # type: ignore[attr-defined]
        client.backend = backend  # type: ignore[attr-defined]
        yield client
        await client.aclose()
        server.should_exit = True
        await serving


def hands(gateway: GatewayClient, asked: Asked) -> KubernetesHands:
    return KubernetesHands(
        api=None,  # type: ignore[arg-type]  # advice goes to gateways alone
        namespace="ns",
        service="s",
        pods={},
        gateways={gateway.url: gateway},
        make_pod=lambda name, lane, at_s: {},
        asked=asked,
        grace_s=1,
    )


async def refused(gateway: GatewayClient, count: int = 4) -> int:
    """How many of so many requests are sent away."""
    async with httpx.AsyncClient(trust_env=False, timeout=30.0) as http:
        statuses = []
        for number in range(count):
            message = {"role": "user", "content": f"hi {number}"}
            body = {"model": "fake-vl", "max_tokens": 2, "messages": [message]}
            answer = await http.post(f"{gateway.url}/v1/chat/completions", json=body)
            statuses.append(answer.status_code)
    assert set(statuses) <= {200, 429}
    return statuses.count(429)


async def cache_of(gateway: GatewayClient, what: str = "") -> dict[str, Any]:
    async with httpx.AsyncClient(trust_env=False, timeout=30.0) as http:
        return dict((await http.get(f"{gateway.url}/admin/cache{what}")).json())


async def test_advice_is_followed_while_it_holds_and_taken_back(gateway: GatewayClient) -> None:
    asked = Asked()
    advice = AdviseGateway(cache_pressure=0.4, lossy_pressure=0.0, shed_ratio=0.5)
    await hands(gateway, asked).advise(NO_ADVICE)
    assert await refused(gateway) == 0
    await hands(gateway, asked).advise(advice)
    assert await refused(gateway) == 2
    if gateway.has_cache:  # type: ignore[attr-defined]
        assert (await cache_of(gateway))["signal"] == 0.4
    await hands(gateway, asked).advise(NO_ADVICE)
    assert await refused(gateway) == 0
    if gateway.has_cache:  # type: ignore[attr-defined]
        assert (await cache_of(gateway))["signal"] == 0.0


async def test_a_changed_policy_is_in_force_when_it_has_been_pushed(
    gateway: GatewayClient,
) -> None:
    changed = {"spec": {**POLICY, "epoch": "2"}}
    policies = CachePolicies(None, lambda namespace, name: changed)  # type: ignore[arg-type]
    told: dict[str, str] = {}
    judged = policies.judge("ns", "desk")
    applied = await policies.push(judged, {gateway.url: gateway}, told)
    if not gateway.has_cache:  # type: ignore[attr-defined]
        assert applied == 0, "it has none: that shows in the policy's status"
        return
    assert applied == 1
    assert (await cache_of(gateway, "/policy"))["spec"]["epoch"] == "2"


async def test_experts_are_ordered_by_their_whole_placement_and_refusals_come_back(
    gateway: GatewayClient,
) -> None:
    placement = ((0, 2, 1, 0), (0, 1, 2, 1))
    name = placement_digest(placement)
    move = ExpertMove(name=name, placement=placement, imbalance=1.0, migration_s=1.0)
    ours = hands(gateway, Asked())
    with pytest.raises(GatewayRefused, match="no worker's model has experts"):
        await ours.move_experts(MoveExperts(move=move))
    first = ((0, 1, 2, 0),) * 2
    seats = ExpertsView(ranks=2, placement=first, digest=placement_digest(first))
    gateway.backend.put("a", Role.ALL, experts=seats)  # type: ignore[attr-defined]
    for _ in range(2):
        await ours.move_experts(MoveExperts(move=move))
    seen = await gateway.experts()
    assert [(w.placement, w.target, w.is_moving) for w in seen.workers] == [
        (placement_digest(first), name, True)
    ]
    assert seen.placed() == {placement_digest(first): (first, 2)}
    short = replace(move, placement=placement[:1])
    with pytest.raises(GatewayRefused, match="placement: must have 2 layers"):
        await ours.move_experts(MoveExperts(move=short))
    led = replace(ours, may_act=lambda: False)
    with pytest.raises(CannotAct, match="another operator may lead"):
        await led.move_experts(MoveExperts(move=move))
