"""This file is about a worker as a plain process: `python -m epidote_workers.worker_process`.

For tests and benches. Its settings come as JSON in the first line of standard input; the process
ends when that pipe closes, so it never outlives whoever started it, not even after kill -9. It says
one line of JSON on standard output when it is routable.
"""

import asyncio
import json
import logging
import os
import sys
import threading
from dataclasses import asdict, dataclass
from functools import partial

import msgspec

from epidote_engine.settings import EngineConfig
from epidote_workers.engine_protocol import EngineFactory, real_engine
from epidote_workers.self_check import TinyPixels, tiny_picture
from epidote_workers.worker import Worker
from epidote_workers.worker_settings import WorkerSettings


@dataclass(frozen=True, kw_only=True)
class FakeSettings:
    """Use the pretend engine; its delays in seconds, and where it stops by itself."""

    step_s: float = 0.0
    layer_s: float = 0.0
    hold_at_tokens: int | None = None
    hold_prefills: bool = False


@dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    """What a worker process is told. `fake` None: the real engine."""

    worker_id: str
    engine: EngineConfig
    worker: WorkerSettings
    fake: FakeSettings | None = None
    num_threads: int = 1  # of torch; workers share the cores of their host


def _engine_of(settings: ProcessSettings) -> tuple[EngineFactory, TinyPixels | None]:
    if settings.fake is None:
        return real_engine, None
    from epidote_workers.fakes import FakeEngine

    return partial(FakeEngine, **asdict(settings.fake)), lambda key: tiny_picture(key, 4, 1)


async def serve(settings: ProcessSettings) -> str:
    """Run until the worker fails; returns why."""
    make_engine, pixels = _engine_of(settings)
    worker = Worker(
        settings.worker_id,
        settings.engine,
        settings.worker,
        make_engine=make_engine,
        tiny_pixels=pixels,
    )
    try:
        await worker.start()
        print(json.dumps({"address": worker.address, "pid": os.getpid()}), flush=True)
        return await worker.failed
    finally:
        await worker.stop()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)  # the kernel closes sockets and frees pools: nothing else is worth waiting for


def main() -> None:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    settings = msgspec.json.decode(
        sys.stdin.readline(), type=ProcessSettings, dec_hook=lambda kind, value: kind(value)
    )
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch
    import uvloop

    torch.set_num_threads(settings.num_threads)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(serve(settings)))


if __name__ == "__main__":
    main()
