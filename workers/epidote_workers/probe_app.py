"""This file is about what a node's supervisor answers to probes and scrapes.

    GET /livez    200 while Ray's node runs; else 503: the pod should be replaced
    GET /readyz   200 while a worker here is routable; else 503 with its state
    GET /worker   role, state, epoch, load of the node's worker, as /admin/fleet has them
    GET /metrics  the same as Prometheus text, with the gateway's names, of this worker alone

No secrets and nothing to change here, hence no key.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from epidote_gateway.admin_bodies import WorkerStatus
from epidote_gateway.fleet_metrics import FleetCollector
from epidote_workers.node_workers import NodeWorkers


def probe_app(node: NodeWorkers, *, is_well: Callable[[], bool], model: str) -> Starlette:
    """The ASGI application; `is_well` tells of Ray's node."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FleetCollector(node.client, model))

    async def livez(request: Request) -> Response:
        well = is_well()
        return _answer(200 if well else 503, {"status": "ok" if well else "node ended"})

    async def readyz(request: Request) -> Response:
        states = {view.worker_id: view.state.value for view in node.workers()}
        status = "ready" if node.is_ready else "not ready"
        return _answer(200 if node.is_ready else 503, {"status": status, "workers": states})

    async def worker(request: Request) -> Response:
        return _answer(200, {"workers": [WorkerStatus.of(view) for view in node.workers()]})

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/livez", livez),
            Route("/health", livez),
            Route("/readyz", readyz),
            Route("/worker", worker),
            Route("/metrics", metrics),
        ]
    )


def _answer(status: int, body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
