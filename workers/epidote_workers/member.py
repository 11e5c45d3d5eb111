"""This file is about one worker as a client follows it: connect, listen, reconnect."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from random import Random

from epidote_core.errors import EpidoteError, WorkerLost
from epidote_core.roles import Role, WorkerState
from epidote_core.worker_view import WorkerView
from epidote_gateway.backend import SwitchOutcome
from epidote_workers.messages import STATUS, Nothing, StatusReport
from epidote_workers.rpc.client import Connection, connect
from epidote_workers.rpc.errors import ConnectionLost

logger = logging.getLogger(__name__)

FIRST_RETRY_S, LAST_RETRY_S = 0.05, 2.0
SILENT_AFTER_S = 5.0  # the status stream speaks ten times a second, the connection answers pings


class Member:
    """A worker's live view and its connection. Belongs to one event loop."""

    def __init__(
        self,
        worker_id: str,
        address: str,
        *,
        on_lost: Callable[[str], None],
        rng: Random,
        secret: bytes | None,
    ) -> None:
        self.worker_id, self.address = worker_id, address
        self.block_size = 0  # 0: not told yet
        self._on_lost, self._rng, self._secret = on_lost, rng, secret
        self._connection: Connection | None = None
        self._blocks: set[bytes] = set()
        self._media: set[str] = set()
        self._view = WorkerView(
            worker_id=worker_id,
            role=Role.ALL,
            state=WorkerState.STARTING,
            epoch=0,
            address=address,
        )
        self._left = False  # it drained before it was gone
        self._task = asyncio.create_task(self._follow()) if address else None

    @property
    def connection(self) -> Connection:
        """The live connection.

        Raises:
            WorkerLost: there is none now.
        """
        if self._connection is None or self._connection.error is not None:
            raise WorkerLost(f"worker {self.worker_id} is not connected", worker_id=self.worker_id)
        return self._connection

    @property
    def view(self) -> WorkerView:
        """As it last said itself. Its cache names are live: they go on changing in place."""
        return self._view

    @property
    def is_leaving(self) -> bool:
        """It drains, or drained until its connection ended: that end was planned."""
        return self._left or self._view.state is WorkerState.DRAINING

    def hear(self, told: WorkerView) -> None:
        """What others say of the worker counts until it speaks itself.

        Afterwards only that it is leaving: the register knows that first.
        """
        if self._connection is None:
            if self._view.state is not WorkerState.FAILED:
                self._view = replace(told, state=self._unconnected(told.state))
        elif told.state is WorkerState.DRAINING and told.epoch == self._view.epoch:
            self._view = replace(self._view, state=told.state)

    def note_role(self, outcome: SwitchOutcome) -> None:
        """A switch that this client asked for has ended: known before the next report."""
        if outcome.epoch > self._view.epoch and outcome.ok:
            self._view = replace(
                self._view,
                role=outcome.to_role,
                epoch=outcome.epoch,
                state=WorkerState.ROUTABLE,
            )

    def note_target(self, target: str) -> None:
        """The worker took an order where its experts shall lie: known before the next report."""
        if (seen := self._view.experts) is not None:
            self._view = replace(self._view, experts=replace(seen, target=target))

    def close(self) -> None:
        """Stop following; streams under way end with `WorkerLost`."""
        if self._task is not None:
            self._task.cancel()
        if self._connection is not None:
            self._connection.close("the worker left the fleet")

    async def closed(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    @staticmethod
    def _unconnected(state: WorkerState) -> WorkerState:
        """A worker that can't be reached from here is nothing to route to."""
        return WorkerState.STARTING if state is WorkerState.ROUTABLE else state

    async def _follow(self) -> None:
        """Until cancelled: connect, read the status stream, and again."""
        retry_s = FIRST_RETRY_S
        while True:
            try:
                self._connection = await connect(
                    self.address, silent_after_s=SILENT_AFTER_S, secret=self._secret
                )
                self._left = False
                await self._read_status(self._connection)
                error: Exception = ConnectionLost("the status stream ended")
            except (EpidoteError, TimeoutError) as lost:
                error = lost
            was_connected = self._connection is not None
            if self._connection is not None:
                self._connection.close(str(error))
            self._connection = None
            if was_connected:
                retry_s = FIRST_RETRY_S
                is_leaving = self._left = self._view.state is WorkerState.DRAINING
                self._view = replace(self._view, state=WorkerState.FAILED)
                logger.log(
                    logging.INFO if is_leaving else logging.WARNING,
                    "worker left" if is_leaving else "worker lost",
                    extra={"worker": self.worker_id, "error": repr(error)},
                )
                self._on_lost(self.worker_id)
            await asyncio.sleep(retry_s * self._rng.uniform(0.5, 1.0))
            retry_s = min(2 * retry_s, LAST_RETRY_S)

    async def _read_status(self, connection: Connection) -> None:
        stream = connection.stream(STATUS, Nothing())
        try:
            while reports := await stream.take():
                for report in reports:
                    self._note(report)
        finally:
            stream.close()

    def _note(self, report: StatusReport) -> None:
        self.block_size = report.block_size
        if report.is_whole:
            self._blocks, self._media = set(), set()
        self._blocks.difference_update(report.blocks_removed)
        self._blocks.update(report.blocks_added)
        self._media.difference_update(report.media_removed)
        self._media.update(report.media_added)
        self._view = replace(
            self._view,
            block_hashes=self._blocks,
            media_keys=self._media,
            expert_tokens=report.expert_tokens or self._view.expert_tokens,
            experts=report.experts or self._view.experts,
        )
        if report.epoch < self._view.epoch and not report.is_whole:
            return  # from before a switch whose end is known already
        self._view = replace(
            self._view,
            role=report.role,
            state=report.state,
            epoch=report.epoch,
            node_id=report.node_id,
            pid=report.pid,
            load=report.load,
        )
