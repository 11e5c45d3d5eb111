"""This file is about carrying answers to the store, in order, while requests go on.

An answer is served from memory until it is stored. Writes happen one after the other, many to a
transaction; a failed write loses the answer, never the order. What was invalidated is owed to the
store until it took it, or until it would have expired there.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence

from epidote_gateway.cache.protocols import Change, Document, DocumentStore
from epidote_gateway.cache.store_errors import StoreUnavailable

logger = logging.getLogger(__name__)
BATCH = 128  # documents in one transaction
MAX_UNSAVED_BYTES = 64 << 20  # beyond it answers are not kept: the store is too slow for them
REMEMBERED = 100_000  # removed ids that must not come back with a late change
RETRY_S = 1.0
POLL_S = 0.01
MAX_TRIES = 600


class Keeper:
    """One store's writer. `on_failure` is called for every refused batch."""

    def __init__(self, store: DocumentStore, on_failure: Callable[[], None]) -> None:
        self._store = store
        self._on_failure = on_failure
        self._unsaved: dict[str, Document] = {}
        self._unsaved_bytes = 0
        self._orders: asyncio.Queue[tuple[str, float]] = asyncio.Queue()  # (id, ttl; <0: remove)
        self._owed: set[str] = set()  # to be removed from the store yet
        self._removed: OrderedDict[str, None] = OrderedDict()

    def keep(self, document: Document, ttl_s: float) -> bool:
        """Serve it from now on, store it soon. False: too much waits already."""
        size = len(document.body) + len(document.vector)
        if self._unsaved_bytes + size > MAX_UNSAVED_BYTES:
            return False
        self._unsaved[document.entry_id] = document
        self._unsaved_bytes += size
        self._orders.put_nowait((document.entry_id, ttl_s))
        return True

    def forget(self, entry_id: str) -> None:
        """Never serve it again, here or elsewhere."""
        self._drop(entry_id)
        self._removed[entry_id] = None
        if len(self._removed) > REMEMBERED:
            self._removed.popitem(last=False)
        self._owed.add(entry_id)
        self._orders.put_nowait((entry_id, -1.0))

    async def removed(self, limit_s: float) -> int:
        """Wait until the store has removed all that is forgotten; how many it has after `limit_s`.

        Those are owed to it. This process serves none of them; a crash would bring them back.
        """
        wanted = set(self._owed)
        deadline_s = asyncio.get_running_loop().time() + limit_s
        while wanted & self._owed and asyncio.get_running_loop().time() < deadline_s:
            await asyncio.sleep(POLL_S)
        return len(wanted & self._owed)

    def is_forgotten(self, entry_id: str) -> bool:
        return entry_id in self._removed

    async def body(self, entry_id: str) -> bytes | None:
        """Raises StoreUnavailable."""
        unsaved = self._unsaved.get(entry_id)
        if unsaved is not None:
            return unsaved.body
        return await self._store.body(entry_id)

    async def changes(self, cursor: str, limit: int) -> tuple[Sequence[Change], str]:
        """Raises StoreUnavailable."""
        return await self._store.changes(cursor, limit=limit)

    async def write(self) -> None:
        """Carry out orders for ever."""
        while True:
            first = await self._orders.get()
            orders = [first]
            while len(orders) < BATCH and not self._orders.empty():
                orders.append(self._orders.get_nowait())
            try:
                await self._write(orders)
            finally:
                for _ in orders:
                    self._orders.task_done()

    async def flush(self) -> None:
        """Return when all that was ordered is done; `write` must run."""
        await self._orders.join()

    async def sweep(self) -> None:
        await self._store.sweep()

    async def _write(self, orders: Sequence[tuple[str, float]]) -> None:
        removals = [entry_id for entry_id, ttl_s in orders if ttl_s < 0]
        if removals:
            await self._remove(removals)
        # Forgotten before it was written: there is nothing to write, the removal does no harm.
        puts = [(self._unsaved[id], ttl_s) for id, ttl_s in orders if id in self._unsaved]
        if puts:
            try:
                await self._store.put_all(puts)
            except StoreUnavailable as error:
                self._on_failure()
                logger.warning("answers not stored", extra={"num": len(puts), "error": str(error)})
            for document, _ in puts:
                if self._unsaved.get(document.entry_id) is document:
                    self._drop(document.entry_id)

    async def _remove(self, entry_ids: Sequence[str]) -> None:
        for _ in range(MAX_TRIES):
            try:
                await self._store.remove(entry_ids)
                self._owed.difference_update(entry_ids)
                return
            except StoreUnavailable as error:
                self._on_failure()
                logger.warning(
                    "invalidation is owed to the store",
                    extra={"num": len(entry_ids), "error": str(error)},
                )
                await asyncio.sleep(RETRY_S)
        logger.error("invalidation given up", extra={"num": len(entry_ids)})

    def _drop(self, entry_id: str) -> None:
        document = self._unsaved.pop(entry_id, None)
        if document is not None:
            self._unsaved_bytes -= len(document.body) + len(document.vector)
