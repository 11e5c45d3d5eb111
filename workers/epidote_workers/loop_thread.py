"""This file is about an event loop with a thread of its own, inside a Serve replica.

Serve's loop answers health checks and handle calls. Token streams run elsewhere, so that neither
ever waits for the other.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")


class LoopThread:
    """A daemon thread that runs one event loop until `stop`."""

    def __init__(self, name: str) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start `work` on this thread's loop, from any thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on this thread's loop and wait on the caller's; cancelling cancels it."""
        return await asyncio.wrap_future(self.submit(work))

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Cancel what still runs, end the loop, join the thread."""
        if not self._thread.is_alive():
            return
        self.submit(_cancel_others()).add_done_callback(
            lambda _: self._loop.call_soon_threadsafe(self._loop.stop)
        )
        await asyncio.to_thread(self._thread.join, timeout_s)


async def _cancel_others() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=2.0)
