"""This file is about getting each request onto a connection at its time, within the limits.

A request passes two gates: the in-flight cap, then a connection. What waits is sent in order, and
how long it waited, and for which gate, is kept apart from our own lateness.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

from epidote_loadgen.client.address import Address, InvalidTarget, header_lines
from epidote_loadgen.client.connection import Connection
from epidote_loadgen.client.connector import CannotConnect, connect
from epidote_loadgen.client.exchange import Exchange
from epidote_loadgen.plan import CapPolicy, Limits
from epidote_loadgen.records import PlannedRequest, RequestRecord, RequestStatus

SWEEP_S = 0.1  # how late a deadline may be noticed
STALE_S = 1.0  # a reply that was judged has so long to end; then its connection is closed


def _nothing() -> None:
    """No pacer has come yet."""


class Dispatcher:
    """All connections of one process. `limits` are this process's share.

    `finished` gets every record, once; `start_s` is the run's start on `time.monotonic`.
    """

    def __init__(
        self,
        address: Address,
        limits: Limits,
        *,
        start_s: float,
        finished: Callable[[RequestRecord], None],
        id_prefix: str = "run",
    ) -> None:
        self._address = address
        self._limits = limits
        self._start_s = start_s
        self._finished = finished
        self._id_prefix = id_prefix
        self._loop = asyncio.get_running_loop()
        self._capped: deque[tuple[Exchange, float]] = deque()  # wait for room under the cap
        self._queued: deque[tuple[Exchange, float, bool]] = deque()  # wait for a connection
        self._retrying: deque[Exchange] = deque()  # wait for a fresh connection
        self._sent: dict[Exchange, Connection] = {}  # in order of sending
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._judged: set[Connection] = set()  # whose replies were judged before their end
        self._opening: set[asyncio.Task[None]] = set()
        self._admitting = False
        self.due_s = math.inf  # when `send_due` wants to be called, by whoever is up then
        self.send_due: Callable[[], None] = _nothing
        self.num_in_flight = self.max_in_flight = 0
        self.num_sent = self.num_connections = self.num_socket_errors = 0
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    @property
    def num_waiting(self) -> int:
        return len(self._capped)

    def stage(self, planned: PlannedRequest, intended_s: float) -> Exchange:
        """Do ahead of time what a send needs: `launch` is short then. Nothing is sent or counted.

        A request that can't be written down is staged all the same, and fails at its turn.
        """
        exchange = Exchange(planned, intended_s, start_s=self._start_s, ended=self._ended)
        request_id = f"{self._id_prefix}-{planned.slot.index}"
        try:
            extra = header_lines(planned.headers) if planned.headers else b""
            exchange.head = self._address.head(planned.path, len(planned.body), request_id, extra)
        except InvalidTarget as error:
            exchange.flaw = str(error)
        return exchange

    def submit(self, planned: PlannedRequest, intended_s: float) -> None:
        """`stage` and `launch`."""
        self.launch(self.stage(planned, intended_s))

    def launch(self, exchange: Exchange) -> None:
        """The request's time has come. It becomes a record, sooner or later."""
        cap = self._limits.max_in_flight
        if cap is None or (self.num_in_flight < cap and not self._capped):
            self._admit(exchange)
        elif self._limits.on_cap is CapPolicy.DROP:
            self.num_in_flight += 1  # taken off again as it ends
            exchange.end(RequestStatus.CAPPED, f"{cap} requests were in flight")
        else:
            self._capped.append((exchange, time.monotonic()))

    def _admit(self, exchange: Exchange) -> None:
        self.num_in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.num_in_flight)
        if exchange.flaw:
            exchange.end(RequestStatus.UNSENT, f"can't be sent: {exchange.flaw}")
            return
        while self._idle:
            connection = self._idle.pop()  # the one used last: others may time out and go
            if connection.is_open:
                self._send(exchange, connection)
                return
        opens = self._may_open()
        self._queued.append((exchange, time.monotonic(), opens))
        if opens:
            self._start_opening()

    def _may_open(self) -> bool:
        most = self._limits.max_connections
        return most is None or len(self._open) + len(self._opening) < most

    def _start_opening(self) -> None:
        task = self._loop.create_task(self._open_one())
        self._opening.add(task)
        task.add_done_callback(self._opened_one)

    def _opened_one(self, task: asyncio.Task[None]) -> None:
        """Whatever waits without an opener of its own must not wait for ever."""
        self._opening.discard(task)
        if not task.cancelled():
            self._open_for_queued()

    def _open_for_queued(self) -> None:
        num_waiting = len(self._queued) + len(self._retrying)
        if len(self._opening) < num_waiting and self._may_open():
            self._start_opening()

    async def _open_one(self) -> None:
        self.num_connections += 1
        try:
            await connect(
                self._address,
                lambda: Connection(self),
                timeout_s=self._limits.connect_timeout_s,
            )
        except CannotConnect as error:
            self.num_socket_errors += error.is_own_limit
            if self._retrying:
                told = f"connection reset, and no other to be had: {error}"
                self._retrying.popleft().end(RequestStatus.RESET, told)
            elif self._queued:
                exchange, _, _ = self._queued.popleft()
                status = RequestStatus.UNSENT if error.is_own_limit else RequestStatus.CONNECT
                exchange.end(status, str(error))

    def _send(self, exchange: Exchange, connection: Connection) -> None:
        connection.send(exchange)
        self.num_sent += not exchange.num_retries
        self._sent[exchange] = connection

    def opened(self, connection: Connection) -> None:
        self._open.add(connection)
        # Not within connection_made: through a proxy the transport is not whole yet.
        self._loop.call_soon(self.freed, connection)

    def freed(self, connection: Connection) -> None:
        """The connection can carry the next request."""
        if not connection.is_open:
            return
        if self._retrying:
            if not connection.num_sent:
                self._send(self._retrying.popleft(), connection)
                return
            if not self._may_open():  # makes room for a fresh one: `lost` opens it
                connection.close()
                return
        if not self._queued:
            self._idle.append(connection)
            return
        exchange, since_s, opened = self._queued.popleft()
        waited_s = time.monotonic() - since_s
        if opened:
            exchange.connect_s += waited_s
        else:
            exchange.waited_s += waited_s
        self._send(exchange, connection)

    def judged(self, connection: Connection) -> None:
        """Its reply is known, and should end soon."""
        self._judged.add(connection)

    def lost(self, connection: Connection, unanswered: Exchange | None) -> None:
        """The connection is gone. An unanswered request goes out once more, on a fresh one: the
        server may have closed others too."""
        self._open.discard(connection)
        self._judged.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if unanswered is not None:
            self._sent.pop(unanswered, None)
            unanswered.num_retries += 1
            self._retrying.append(unanswered)
        self._open_for_queued()

    def _ended(self, exchange: Exchange, record: RequestRecord) -> None:
        self._sent.pop(exchange, None)
        self.num_in_flight -= 1
        self._finished(record)
        if self._capped and not self._admitting:
            # Soon, not now: by then the connection of this exchange may be free.
            self._admitting = True
            self._loop.call_soon(self._admit_waiting)

    def _admit_waiting(self) -> None:
        self._admitting = False
        cap = self._limits.max_in_flight
        while self._capped and (cap is None or self.num_in_flight < cap):
            exchange, since_s = self._capped.popleft()
            exchange.waited_s += time.monotonic() - since_s
            self._admit(exchange)

    def _sweep(self) -> None:
        """Enforce deadlines. All requests have the same patience, so the oldest come first."""
        now_s = time.monotonic()
        patience_s = self._limits.request_timeout_s
        while self._sent:
            exchange, connection = next(iter(self._sent.items()))
            if now_s < connection.sent_at_s + patience_s:
                break
            connection.give_up(RequestStatus.TIMEOUT, f"not finished within {patience_s:g} s")
            self._sent.pop(exchange, None)
        for connection in list(self._judged):
            if not connection.is_stale:
                self._judged.discard(connection)
            elif now_s > connection.busy_since_s + STALE_S:
                self._judged.discard(connection)
                connection.close()
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    async def close(self, why: str, *, is_cut: bool = False) -> None:
        """End everything: what waits was never sent, what is open is unfinished.

        `is_cut`: by our own interrupt, which says nothing about the server.
        """
        self._sweeper.cancel()
        capped, self._capped = self._capped, deque()
        for exchange, since_s in capped:
            exchange.waited_s += time.monotonic() - since_s
            self.num_in_flight += 1
            exchange.end(
                RequestStatus.CAPPED, f"still held back by the in-flight cap: {why}", is_cut=is_cut
            )
        queued, self._queued = self._queued, deque()
        for exchange, _, _ in queued:
            exchange.end(RequestStatus.UNSENT, f"still without a connection: {why}", is_cut=is_cut)
        retrying, self._retrying = self._retrying, deque()
        for exchange in retrying:
            exchange.end(RequestStatus.UNFINISHED, why, is_cut=is_cut)
        for exchange, connection in list(self._sent.items()):
            connection.give_up(RequestStatus.UNFINISHED, why, is_cut=is_cut)
            exchange.end(RequestStatus.UNFINISHED, why, is_cut=is_cut)
        for task in list(self._opening):
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for connection in list(self._open):
            connection.close()
        await asyncio.sleep(0)  # lets the transports go
