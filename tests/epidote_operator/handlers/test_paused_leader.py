"""A leader that was paused past its lease writes nothing more, and drops what it was doing."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from aiohttp import web

from epidote_core.roles import Role
from epidote_operator.act.hands import CannotAct
from epidote_operator.act.kubernetes_hands import Asked, KubernetesHands
from epidote_operator.handlers.ticker import Ticker
from epidote_operator.kube.api import KubeApi
from epidote_operator.kube.credentials import Credentials
from epidote_operator.kube.errors import NotLeading
from epidote_operator.kube.leader import LEASE_S, LeaderElection
from epidote_operator.reconcile import ServiceState
from epidote_operator.telemetry import OperatorMetrics
from epidote_planner.decision import AdviseGateway
from epidote_planner.lane import Lane

RESOURCE: dict[str, Any] = {"metadata": {"generation": 1}, "spec": {}}


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Server:
    """An API server that stores everything and counts what others than the lease were written."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] = {}
        self.writes: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            if request.path not in self.stored:
                return web.json_response({}, status=404)
            return web.json_response(self.stored[request.path])
        body = await request.json()
        name = body.get("metadata", {}).get("name", "")
        path = f"{request.path}/{name}" if request.method == "POST" else request.path
        self.stored[path] = {"metadata": {"resourceVersion": "1"}, **body}
        if "leases" not in path:
            self.writes.append(f"{request.method} {path}")
        return web.json_response(self.stored[path])


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, str]]:
    made = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield made, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


class Reconciler:
    """Writes, waits in the middle of the tick, and writes again."""

    def __init__(self, api: KubeApi) -> None:
        self.api, self.metrics = api, OperatorMetrics()
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        self.ended: BaseException | None = None

    async def reconcile(self, resource: Any, state: ServiceState, now_s: float) -> None:
        try:
            await self.api.merge("/api/v1/namespaces/ns/pods/first", {"metadata": {}})
            self.reached.set()
            await self.go_on.wait()
            await self.api.merge("/api/v1/namespaces/ns/pods/second", {"metadata": {}})
        except BaseException as error:
            self.ended = error
            raise


async def test_after_the_pause_no_write_is_sent_and_the_tick_ends(
    server: tuple[Server, str],
) -> None:
    stored, url = server
    clock = Clock()
    credentials = Credentials(server=url, ssl_context=httpx.create_ssl_context())
    async with KubeApi.connected(credentials) as own:
        leader = LeaderElection(
            api=own, namespace="ns", name="lease", identity="one", monotonic=clock
        )
        await leader.attempt()
        may_write = lambda: leader.is_leader  # noqa: E731
        async with KubeApi.connected(credentials, may_write=may_write) as api:
            reconciler: Any = Reconciler(api)

            async def caught_up(key: Any) -> bool:
                return True

            ticker = Ticker(
                reconciler=reconciler,
                services=lambda: [(("ns", "web"), RESOURCE)],
                leader=leader,
                clock=clock,
                is_caught_up=caught_up,
            )
            running = asyncio.create_task(ticker.run())
            async with asyncio.timeout(60.0):
                await reconciler.reached.wait()
                clock.now_s += LEASE_S  # paused: the lease has run out unnoticed
                reconciler.go_on.set()  # the tick goes on before anybody looks at the clock
                while reconciler.ended is None:
                    await asyncio.sleep(0)
            assert stored.writes == ["PATCH /api/v1/namespaces/ns/pods/first"]
            assert isinstance(reconciler.ended, NotLeading | asyncio.CancelledError)
            with pytest.raises(NotLeading):
                await api.delete("/api/v1/namespaces/ns/pods/first")
            assert await api.get("/api/v1/namespaces/ns/pods/first"), "it may still read"
            async with asyncio.timeout(60.0):
                while ticker._entries:
                    await asyncio.sleep(0.01)
            running.cancel()


async def test_no_gateway_is_ordered_about_by_a_leader_no_more() -> None:
    hands = KubernetesHands(
        api=None,  # type: ignore[arg-type]
        namespace="ns",
        service="web",
        pods={},
        gateways={"http://x": None},  # type: ignore[dict-item]
        make_pod=lambda name, lane, at_s: {},
        asked=Asked(),
        grace_s=1,
        may_act=lambda: False,
    )
    advice = AdviseGateway(cache_pressure=0.5, lossy_pressure=0.0, shed_ratio=0.0)
    for order in (
        hands.advise(advice),
        hands.match_size(Counter({Lane("", Role.DECODE): 1}), None),
    ):
        with pytest.raises(CannotAct, match="another operator may lead"):
            await order
