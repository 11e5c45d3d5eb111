"""This file is about starting workers as plain processes, for tests and benches without Ray."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from epidote_core.errors import EpidoteError
from epidote_workers.worker_process import ProcessSettings

COMMAND = (sys.executable, "-m", "epidote_workers.worker_process")
START_TIMEOUT_S = 200.0  # importing torch takes 3 s of a core, and a busy machine has few
STOP_TIMEOUT_S = 60.0


class NotStarted(EpidoteError):
    """The process ended, or said nothing in time."""


class LocalProcess:
    """One worker process of ours. It ends when this process does, or at `stop` or `kill`."""

    def __init__(self, settings: ProcessSettings) -> None:
        self.settings = settings
        self.address = ""
        self._process: asyncio.subprocess.Process | None = None

    @property
    def worker_id(self) -> str:
        return self.settings.worker_id

    @property
    def pid(self) -> int:
        assert self._process is not None, "start first"
        return self._process.pid

    async def start(self) -> None:
        """Return when the worker is routable.

        Raises:
            NotStarted: its own words are on this process's standard error.
        """
        self._process = process = await asyncio.create_subprocess_exec(
            *COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment(self.settings),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(_told(self.settings))
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                line = await process.stdout.readline()
        except TimeoutError as error:
            await self.kill()
            raise NotStarted(f"{self.worker_id}: not ready in {START_TIMEOUT_S:g} s") from error
        if not line:
            raise NotStarted(f"{self.worker_id}: ended with {await process.wait()}")
        self.address = json.loads(line)["address"]

    async def kill(self) -> None:
        """As a crash would: no goodbye to anybody."""
        assert self._process is not None, "start first"
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def part(self) -> None:
        """Close the pipe that ties the process to this one, and wait for its end.

        Raises:
            TimeoutError: it goes on.
        """
        assert self._process is not None, "start first"
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await self._process.wait()

    async def stop(self) -> None:
        """End the process, if it still runs."""
        if self._process is None or self._process.returncode is not None:
            return
        try:
            await self.part()
        except TimeoutError:
            await self.kill()


@dataclass(frozen=True, kw_only=True)
class Started:
    """A worker process that is routable; what it says on standard error may be read."""

    process: "subprocess.Popen[bytes]"
    address: str


@contextlib.contextmanager
def started_together(all_settings: Sequence[ProcessSettings]) -> Iterator[dict[str, Started]]:
    """Processes by worker id, for whoever outlives an event loop; killed at the end.

    Raises:
        NotStarted: with its words.
    """
    processes = {settings.worker_id: _spawned(settings) for settings in all_settings}
    try:
        yield {name: _routable(name, process) for name, process in processes.items()}
    finally:
        for process in processes.values():
            with process:  # closes its pipes and waits
                process.kill()


def _spawned(settings: ProcessSettings) -> "subprocess.Popen[bytes]":
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, env=_environment(settings)
    )
    assert process.stdin is not None
    process.stdin.write(_told(settings))
    process.stdin.flush()
    return process


def _routable(name: str, process: "subprocess.Popen[bytes]") -> Started:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise NotStarted(f"{name}: {process.communicate()[1].decode(errors='replace')}")
    return Started(process=process, address=json.loads(line)["address"])


def _environment(settings: ProcessSettings) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(settings.num_threads)}


def _told(settings: ProcessSettings) -> bytes:
    return msgspec.json.encode(settings, enc_hook=str) + b"\n"
