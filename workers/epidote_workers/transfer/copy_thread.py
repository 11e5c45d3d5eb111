"""This file is about copying beside the event loop, never past the end of a request.

Small copies are done at once: handing one to a thread costs more than 100 µs. A copy that has begun
is always waited for, even when its request is cancelled, since its blocks go to somebody else next.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

INLINE_BYTES = 1 << 18  # about 40 µs


class CopyThread:
    """One thread for the large copies of one worker."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="epidote-copy")

    async def run(self, copy: Callable[[], None], num_bytes: int) -> None:
        """Do the copy. A cancelled caller gets its `CancelledError` after the copy has ended."""
        if num_bytes <= INLINE_BYTES:
            copy()
            return
        await self.run_apart(copy)

    async def run_apart(self, copy: Callable[[], None]) -> None:
        """Like `run`, in the thread whatever the size: for copies that wait for a device."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, copy)
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        future.result()

    def close(self) -> None:
        """Wait for the copy under way, take no more."""
        self._pool.shutdown()
