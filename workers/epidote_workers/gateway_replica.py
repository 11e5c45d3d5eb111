"""This file is about the deployment `Gateway`: the FastAPI app in a Serve replica.

Its two forms differ in who listens: `service_settings.Ingress` has the reason.
"""

from typing import TYPE_CHECKING, Any

from ray import serve

from epidote_workers.loop_thread import LoopThread
from epidote_workers.loopback import keep_replica_on_loopback
from epidote_workers.service_settings import ServiceSettings

if TYPE_CHECKING:
    from fastapi import FastAPI


class OwnGateway:
    """Runs its own uvicorn, with the whole data path on a loop and thread of its own."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: ServiceSettings, fleet: Any, engine: Any
    ) -> None:
        from epidote_workers.gateway_server import GatewayServer

        keep_replica_on_loopback()
        self._thread = LoopThread("gateway")
        self._server = GatewayServer(settings, fleet)
        await self._thread.call(self._server.start())

    def check_health(self) -> None:
        """Raises if the HTTP server ended: Serve then restarts this replica."""
        if not self._thread.is_alive or not self._server.is_serving:
            raise RuntimeError("the HTTP server ended")

    async def __del__(self) -> None:
        if hasattr(self, "_server"):
            await self._thread.call(self._server.stop())
        await self._thread.stop()


class _ServedGateway:
    """Behind Serve's proxies; Serve runs the ASGI app on the replica's loop."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: ServiceSettings, fleet: Any, engine: Any
    ) -> None:
        from epidote_workers.gateway_server import build_gateway

        keep_replica_on_loopback()
        self._app, self._backend = await build_gateway(settings, fleet)

    def __serve_build_asgi_app__(self) -> "FastAPI":
        return self._app

    async def __del__(self) -> None:
        if hasattr(self, "_backend"):
            await self._backend.stop()


def served_gateway() -> Any:
    """The deployment class; wrapped here since Serve's wrapper hides the class it wraps."""
    return serve.ingress()(_ServedGateway)
