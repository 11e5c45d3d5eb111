"""This file is about one gateway process's HTTP server, wherever it runs."""

import asyncio
import os
import resource
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from epidote_core.roles import Stage
from epidote_gateway.app import create_app
from epidote_gateway.http_protocol import limited_to
from epidote_workers.gateway_socket import listening_socket
from epidote_workers.renderer import renderer_of
from epidote_workers.serve_backend import ServeBackend
from epidote_workers.service_settings import ServiceSettings
from epidote_workers.sibling_metrics import SiblingMetrics

STOP_S = 3.0  # open streams get this long when the gateway stops
_OWN_FILES = 256  # at most: workers' connections, the cache's store, logs


async def build_gateway(
    settings: ServiceSettings, fleet: Any, siblings: SiblingMetrics | None = None
) -> tuple[FastAPI, ServeBackend]:
    """The app over the register `fleet` (a Serve handle); the backend must be stopped."""
    worker = settings.worker
    renderer = await asyncio.to_thread(
        renderer_of,
        worker.model,
        worker.max_model_len,
        takes_media=Stage.ENCODE in settings.stages,
    )
    backend = ServeBackend(fleet)
    await backend.start()
    gather = siblings.gather if siblings is not None else None
    return create_app(backend, renderer, settings.gateway, siblings=gather), backend


class GatewayServer:
    """uvicorn on a port that other gateways of this user may share. Belongs to one loop."""

    def __init__(self, settings: ServiceSettings, fleet: Any, *, stop_s: float = STOP_S) -> None:
        """`stop_s` is what open streams get when it stops."""
        self._settings, self._fleet, self._stop_s = settings, fleet, stop_s
        directory = settings.worker.run_directory
        self._siblings = SiblingMetrics(Path(directory), os.getpid()) if directory else None
        self._serving: asyncio.Task[None] | None = None
        self._backend: ServeBackend | None = None

    async def start(self) -> None:
        """Returns when it listens.

        Raises:
            OSError: the port can't be had.
        """
        app, self._backend = await build_gateway(self._settings, self._fleet, self._siblings)
        if self._siblings is not None:
            await self._siblings.listen(app.state.registry)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=limited_to(_most_connections(self._settings.gateway.max_connections)),
                ws="none",
                log_config=None,
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=max(1, int(self._stop_s)),
                timeout_keep_alive=75,  # a client's pool outlives most proxies' 60 s
            )
        )
        sock = listening_socket(self._settings.host, self._settings.port)
        self._serving = asyncio.create_task(self._server.serve(sockets=[sock]))
        while not self._server.started:
            if self._serving.done():
                await self._serving
                raise RuntimeError("the HTTP server ended while it started")
            await asyncio.sleep(0.01)

    @property
    def is_serving(self) -> bool:
        return self._serving is not None and not self._serving.done()

    async def stop(self) -> None:
        """Take no more connections, let streams end, at most `stop_s`."""
        if self._serving is not None:
            self._server.should_exit = True
            await asyncio.wait([self._serving], timeout=self._stop_s + 1.0)
        if self._siblings is not None:
            await self._siblings.close()
        if self._backend is not None:
            await self._backend.stop()


def _most_connections(asked: int) -> int:
    """As many as asked for, as far as this process may open files."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed == resource.RLIM_INFINITY:
        return asked
    return max(1, min(asked, allowed - min(_OWN_FILES, allowed // 2)))
