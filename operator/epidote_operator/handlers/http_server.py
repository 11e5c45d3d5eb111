"""This file is about the operator's own HTTP: metrics for Prometheus, health for the kubelet."""

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from epidote_operator.handlers.health import Health
from epidote_operator.telemetry import OperatorMetrics


async def serve_http(
    metrics: OperatorMetrics, health: Health, host: str, port: int
) -> web.AppRunner:
    """Serve `/metrics`, `/healthz` and `/readyz`.

    Healthy: every loop comes round. Ready: that, the caches are filled, and the lease is heard of.
    """

    async def get_metrics(_: web.Request) -> web.Response:
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        return _told(health.stalled())

    async def readyz(_: web.Request) -> web.Response:
        return _told(health.unready(), remark=health.remark())

    app = web.Application()
    app.router.add_get("/metrics", get_metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner


def _told(trouble: str, *, remark: str = "") -> web.Response:
    well = f"ok, standing by: {remark}" if remark else "ok"
    return web.Response(text=f"{trouble or well}\n", status=503 if trouble else 200)
