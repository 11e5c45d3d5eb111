"""This file is about a whole fleet in one process, one worker for each `pretend_pod` of a folder.

    python -m epidote_workers.pretend_fleet DIR [--host H] [--port P]

For tests of whoever manages a fleet. Workers, their sockets, drains, role switches and self-checks
are the real ones, and so is the gateway in front of them; engines pretend, tokens mean nothing, and
Ray and the register are left out.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from epidote_core.roles import Role, WorkerState
from epidote_engine.settings import EngineConfig
from epidote_gateway.app import create_app
from epidote_gateway.fakes import FakeRenderer
from epidote_gateway.settings import GatewaySettings
from epidote_workers.client import FleetClient
from epidote_workers.fakes import FakeEngine
from epidote_workers.pretend_pod import FLEET
from epidote_workers.self_check import tiny_picture
from epidote_workers.worker import Worker
from epidote_workers.worker_settings import WorkerSettings

logger = logging.getLogger(__name__)

POLL_S = 0.05
DRAIN_S = 30.0
PATCH_PX, MERGE = 16, 1  # of the pretend model's pictures


@dataclass
class _Pod:
    worker: Worker
    pid: int
    task: "asyncio.Task[None] | None" = None  # starting, or leaving
    is_leaving: bool = False


@dataclass
class PretendFleet:
    """Keeps a worker for every pod of `folder`."""

    folder: Path
    sockets: Path
    step_s: float
    client: FleetClient
    _pods: dict[str, _Pod] = field(default_factory=dict)
    _ready: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Until cancelled; then every worker is stopped."""
        (self.folder / FLEET).write_text(str(os.getpid()))
        try:
            while True:
                self._look()
                await asyncio.sleep(POLL_S)
        finally:
            (self.folder / FLEET).unlink(missing_ok=True)
            for pod in self._pods.values():
                if pod.task is not None:
                    pod.task.cancel()
                await pod.worker.stop()

    def _look(self) -> None:
        for note in self.folder.glob("*.pod"):
            with contextlib.suppress(OSError, ValueError, KeyError):  # just gone
                told = json.loads(note.read_text())
                known = self._pods.get(note.stem)
                if known is None or known.pid != told["pid"]:
                    if known is not None:
                        self._end(note.stem, drain=False)
                    self._begin(note.stem, Role(told["role"]), told["pid"])
        for name, pod in list(self._pods.items()):
            if not _lives(pod.pid):
                self._end(name, drain=False)
            elif not pod.is_leaving and (self.folder / f"{name}.leaving").exists():
                self._end(name, drain=True)
        self._tell_probes()

    def _tell_probes(self) -> None:
        views = self.client.workers()
        routable = {v.worker_id for v in views if v.state is WorkerState.ROUTABLE}
        for name in routable - self._ready:
            (self.folder / f"{name}.ready").touch()
        for name in self._ready - routable:
            (self.folder / f"{name}.ready").unlink(missing_ok=True)
        self._ready = routable

    def _begin(self, name: str, role: Role, pid: int) -> None:
        worker = Worker(
            name,
            EngineConfig(model="none", role=role, num_kv_blocks=512, num_media_rows=512),
            WorkerSettings(socket_dir=self.sockets / str(pid)),
            make_engine=lambda config, allocate: FakeEngine(config, allocate, step_s=self.step_s),
            tiny_pixels=lambda key: tiny_picture(key, PATCH_PX, MERGE),
        )
        pod = self._pods[name] = _Pod(worker, pid)
        pod.task = asyncio.create_task(self._start(worker))

    async def _start(self, worker: Worker) -> None:
        try:
            await worker.start()
        except Exception:  # the worker says FAILED: that is what its manager has to see
            logger.exception("pretend worker did not start")
        self._tell()

    def _end(self, name: str, *, drain: bool) -> None:
        pod = self._pods[name]
        if not drain:
            del self._pods[name]
            (self.folder / f"{name}.pod").unlink(missing_ok=True)
            self._tell()
        pod.is_leaving = True
        pod.task = asyncio.create_task(self._leave(name, pod, drain=drain))

    async def _leave(self, name: str, pod: _Pod, *, drain: bool) -> None:
        if drain:
            await pod.worker.drain(deadline_s=DRAIN_S)
            self._pods.pop(name, None)
            self._tell()
        await pod.worker.stop()
        if drain:
            (self.folder / f"{name}.pod").unlink(missing_ok=True)

    def _tell(self) -> None:
        self.client.update_members(
            [(name, pod.worker.address) for name, pod in self._pods.items() if pod.worker.address]
        )


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def _nobody(num_workers: int) -> None:
    """Whoever makes the pods decides how many there are."""


async def serve(folder: Path, host: str, port: int, *, step_s: float) -> None:
    """Until SIGTERM."""
    client = FleetClient(scale=_nobody)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(client, FakeRenderer(), GatewaySettings.from_env()),
            host=host,
            port=port,
            log_level="warning",
            ws="none",
            timeout_graceful_shutdown=3,
        )
    )
    with tempfile.TemporaryDirectory(prefix="ep") as sockets:  # short: sockets' paths are
        fleet = PretendFleet(folder, Path(sockets), step_s, client)
        keeping = asyncio.create_task(fleet.run())
        try:
            await server.serve()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await client.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--step-s", type=float, default=0.005, help="pretended time of a step")
    parser.add_argument("--host", default=os.environ.get("POD_IP", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(serve(arguments.folder, arguments.host, arguments.port, step_s=arguments.step_s))


if __name__ == "__main__":
    main()
