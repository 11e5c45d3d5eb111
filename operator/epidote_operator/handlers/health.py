"""This file is about signs of life: which loops still come round, and what ends the process.

A loop that ended or hangs would leave a process that answers its probes and does nothing. So each
one says when it comes round, the probes read that, and a part that ends takes the process along:
the kubelet starts another one.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from epidote_core.errors import EpidoteError

logger = logging.getLogger(__name__)

KOPF_END_S = 30.0  # it waits for its own parts before it tells why it ends
STALLED_S = 120.0  # longer than every call's deadline and patience in one round of any loop


class PartEnded(EpidoteError):
    """A part of the operator ended that must not."""


@dataclass
class Health:
    """When each loop came round last, by the clock `monotonic`. A loop that never began is not
    known here: until then the process starts."""

    monotonic: Callable[[], float]
    is_ready: Callable[[], bool] = lambda: False  # the caches are filled
    lease_trouble: Callable[[], str] = lambda: ""  # "": none, or there is no election
    tick_trouble: Callable[[], str] = lambda: ""  # why nothing can be done, nor told in a status
    remark: Callable[[], str] = lambda: ""  # what people should know of one that is ready
    _turned_s: dict[str, float] = field(default_factory=dict)

    def turn(self, loop: str) -> None:
        """A loop has come round."""
        self._turned_s[loop] = self.monotonic()

    def stalled(self) -> str:
        """Loops that have not come round for too long; "": none."""
        now_s = self.monotonic()
        return ", ".join(
            f"{loop} has not come round for {now_s - at_s:.0f} s"
            for loop, at_s in sorted(self._turned_s.items())
            if now_s - at_s > STALLED_S
        )

    def unready(self) -> str:
        """Why it can't do its work now; "": it can, or would if it led.

        An API server that is away is no reason to restart, hence not in `stalled`.
        """
        if not self.is_ready():
            return "starting"
        return self.stalled() or self.lease_trouble() or self.tick_trouble()


async def watch_over(
    kopf_task: "asyncio.Task[Any]", parts: Collection["asyncio.Task[Any]"], stop: asyncio.Event
) -> None:
    """Until `stop`, or the first end of a part, which nobody asked for.

    kopf takes signals itself: asked to end, it ends without an error, after it has cancelled what
    was started later than itself, our parts among it. That is no failure.

    Raises:
        PartEnded: with the part's name and why, which is logged as well.
    """
    everything = [*parts, kopf_task]
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([stopping, *everything], return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set() and any(part.done() and part.cancelled() for part in parts):
            either = asyncio.FIRST_COMPLETED
            await asyncio.wait([stopping, kopf_task], timeout=KOPF_END_S, return_when=either)
    finally:
        stopping.cancel()
    if stop.is_set():
        return
    for part in everything:
        if not part.done() or part.cancelled():
            continue
        error = part.exception()
        if part is kopf_task and error is None:
            continue
        name = part.get_name()
        logger.critical("a part of the operator ended", exc_info=error, extra={"part": name})
        raise PartEnded(f"{name} ended: {error!r}; the operator can't go on without it") from error
