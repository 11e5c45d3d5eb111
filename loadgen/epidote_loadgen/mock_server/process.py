"""This file is about a mock server in a process of its own, for tests, benches and the shell."""

import asyncio
import contextlib
import http.client
import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from epidote_loadgen.mock_server.server import MockSettings, serving
from epidote_loadgen.runner.fast_loop import run_fast

START_S = 60.0
STOP_S = 10.0


def serve(settings: MockSettings, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `announce` gets the URL once it listens.

    Raises:
        OSError: it can't listen there.
    """

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        async with serving(settings) as (_, url):
            announce(url)
            await stop.wait()

    run_fast(main())


@contextlib.contextmanager
def mock_process(settings: MockSettings) -> Iterator[str]:
    """The URL of a mock server that ends with the context.

    Raises:
        RuntimeError: it did not come up.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(settings, theirs), name="mock-server")
    process.start()
    theirs.close()
    try:
        if not ours.poll(START_S):
            raise RuntimeError(f"the mock server did not listen within {START_S:g} s")
        try:
            yield str(ours.recv())
        except EOFError:
            raise RuntimeError("the mock server could not listen") from None
    finally:
        process.terminate()
        process.join(STOP_S)
        if process.is_alive():
            process.kill()
            process.join()


def _child(settings: MockSettings, pipe: "Connection[str, object]") -> None:
    serve(settings, pipe.send)


def ask(url: str, method: str, path: str) -> Any:
    """A JSON answer of the mock server's own endpoints, such as GET /mock/truth."""
    host = url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=30.0)
    try:
        connection.request(method, path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
