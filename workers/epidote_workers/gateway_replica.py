"""This file is about the deployment `Gateway`: the FastAPI app in a Serve replica.

Its two forms differ in who listens: `service_settings.Ingress` has the reason.
"""

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import uvicorn
from ray import serve

from epidote_workers.loop_thread import LoopThread
from epidote_workers.loopback import keep_replica_on_loopback
from epidote_workers.service_settings import ServiceSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from epidote_workers.serve_backend import ServeBackend

STOP_S = 3.0  # open streams get this long when the gateway stops


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound socket that other gateway replicas of this user may share (SO_REUSEPORT).

    The kernel spreads connections over the sockets of one port.
    """
    family, kind, proto, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, proto)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(address)
    return sock


async def _build(settings: ServiceSettings, fleet: Any) -> tuple["FastAPI", "ServeBackend"]:
    # Here and not above: who merely deploys these classes needs none of it.
    from epidote_gateway.app import create_app
    from epidote_workers.renderer import renderer_of
    from epidote_workers.serve_backend import ServeBackend

    worker = settings.worker
    renderer = await asyncio.to_thread(renderer_of, worker.model, worker.max_model_len)
    backend = ServeBackend(fleet)
    await backend.start()
    return create_app(backend, renderer, settings.gateway), backend


class OwnGateway:
    """Runs its own uvicorn, with the whole data path on a loop and thread of its own."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: ServiceSettings, fleet: Any, engine: Any
    ) -> None:
        keep_replica_on_loopback()
        self._thread = LoopThread("gateway")
        await self._thread.call(self._start(settings, fleet))

    async def _start(self, settings: ServiceSettings, fleet: Any) -> None:
        app, self._backend = await _build(settings, fleet)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                log_config=None,
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=int(STOP_S),
                timeout_keep_alive=75,  # a client's pool outlives most proxies' 60 s
            )
        )
        sock = listening_socket(settings.host, settings.port)
        self._serving = asyncio.create_task(self._server.serve(sockets=[sock]))
        while not self._server.started:
            if self._serving.done():
                await self._serving
                raise RuntimeError("the HTTP server ended while it started")
            await asyncio.sleep(0.01)

    def check_health(self) -> None:
        """Raises if the HTTP server ended: Serve then restarts this replica."""
        if not self._thread.is_alive or self._serving.done():
            raise RuntimeError("the HTTP server ended")

    async def __del__(self) -> None:
        if hasattr(self, "_server"):
            await self._thread.call(self._stop())
        await self._thread.stop()

    async def _stop(self) -> None:
        self._server.should_exit = True
        await asyncio.wait([self._serving], timeout=STOP_S + 1.0)
        await self._backend.stop()


class _ServedGateway:
    """Behind Serve's proxies; Serve runs the ASGI app on the replica's loop."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: ServiceSettings, fleet: Any, engine: Any
    ) -> None:
        keep_replica_on_loopback()
        self._app, self._backend = await _build(settings, fleet)

    def __serve_build_asgi_app__(self) -> "FastAPI":
        return self._app

    async def __del__(self) -> None:
        if hasattr(self, "_backend"):
            await self._backend.stop()


def served_gateway() -> Any:
    """The deployment class; wrapped here since Serve's wrapper hides the class it wraps."""
    return serve.ingress()(_ServedGateway)
