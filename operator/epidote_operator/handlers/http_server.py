"""This file is about the operator's own HTTP: metrics for Prometheus, health for the kubelet."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from epidote_operator.telemetry import OperatorMetrics


async def serve_http(
    metrics: OperatorMetrics, is_ready: Callable[[], bool], host: str, port: int
) -> web.AppRunner:
    """Serve `/metrics`, `/healthz` (the loop turns) and `/readyz` (the caches are filled)."""

    async def get_metrics(_: web.Request) -> web.Response:
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        ready = is_ready()
        return web.Response(text="ok\n" if ready else "starting\n", status=200 if ready else 503)

    app = web.Application()
    app.router.add_get("/metrics", get_metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
