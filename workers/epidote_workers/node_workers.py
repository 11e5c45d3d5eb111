"""This file is about the workers of one node, as their own sockets tell, without the register."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from epidote_core.errors import EpidoteError
from epidote_core.roles import WorkerState
from epidote_core.worker_view import WorkerView
from epidote_workers.client import FleetClient
from epidote_workers.messages import RETIRE, RetireCall
from epidote_workers.rpc.client import connect

logger = logging.getLogger(__name__)

LOOK_S = 0.5  # a listing of a directory with a handful of names
CONNECT_S = 5.0


class NodeWorkers:
    """Follows every worker whose socket lies in `directory`. Belongs to one event loop."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.client = FleetClient()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self.look()
                await asyncio.sleep(LOOK_S)
        finally:
            await self.client.stop()

    def look(self) -> None:
        """See who came and who went; sockets of killed workers stay, and count as failed."""
        self.client.update_members(
            [(path.stem, f"unix:{path}") for path in sorted(self._directory.glob("*.sock"))]
        )

    def workers(self) -> Sequence[WorkerView]:
        """Those that answer or may still come up."""
        return [view for view in self.client.workers() if view.state is not WorkerState.FAILED]

    @property
    def is_ready(self) -> bool:
        return any(view.state is WorkerState.ROUTABLE for view in self.workers())

    async def retire(self, deadline_s: float) -> None:
        """Have every worker leave the fleet; returns when all did, or when it was not to be."""
        await asyncio.gather(*(self._retire(view.address, deadline_s) for view in self.workers()))

    async def _retire(self, address: str, deadline_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            try:
                connection = await connect(address, timeout_s=CONNECT_S)
                limit_s = 2 * deadline_s + CONNECT_S
                try:
                    await connection.call(
                        RETIRE, RetireCall(deadline_s=deadline_s), timeout_s=limit_s
                    )
                finally:
                    connection.close("retired")
            except EpidoteError as error:  # it is gone: what it served goes on elsewhere
                logger.warning("not retired", extra={"error": str(error)})
