"""This file is about answers in one SQLite file: the store of a gateway, or of several on one host.

An answer is a row, written in one transaction of the write-ahead log: after a crash it is there
whole or not at all. The last moments before a power cut may be lost, since nothing waits for the
disk; a killed process loses nothing that `put` returned for.

A removed row stays for an hour as a tombstone: other gateways on the file learn of it by `changes`.
"""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from epidote_gateway.cache.protocols import Change, Document
from epidote_gateway.cache.store_errors import StoreUnavailable

Result = TypeVar("Result")
BUSY_MS = 2000  # another gateway's transaction takes microseconds; its checkpoint milliseconds
TOMBSTONE_S = 3600.0
VACUUM_PAGES = 256  # given back to the file system at a time
SCHEMA_VERSION = 1
_SCHEMA = """
create table if not exists entries (
    seq integer primary key autoincrement,  -- order of changes
    entry_id text not null unique,
    until_s real not null,                  -- unix time; of tombstones too
    facts text,                             -- null: removed
    vector blob,
    body blob
);
create index if not exists entries_until on entries (until_s);
create table if not exists notes (name text primary key, text text not null);
"""


class SqliteStore:
    """See `protocols.DocumentStore`. One thread reads, one writes."""

    def __init__(self, path: Path, *, unix_time: Callable[[], float] = time.time) -> None:
        """Open or create the file.

        Raises:
            StoreUnavailable: no SQLite file, one of another version, or not to be opened.
        """
        self._unix_time = unix_time
        self._path = path
        self._reader = self._connect()
        self._writer = self._connect()
        self._reads = ThreadPoolExecutor(1, "cache-read")
        self._writes = ThreadPoolExecutor(1, "cache-write")

    def _connect(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch(mode=0o600)  # people's questions; SQLite's other files follow it
            db = sqlite3.connect(
                self._path, timeout=BUSY_MS / 1e3, isolation_level=None, check_same_thread=False
            )
            db.execute("pragma auto_vacuum = incremental")
            db.execute("pragma journal_mode = wal")
            db.execute("pragma synchronous = normal")
            version = db.execute("pragma user_version").fetchone()[0]
            if version not in (0, SCHEMA_VERSION):
                raise StoreUnavailable(
                    f"{self._path}: has version {version}, this program knows {SCHEMA_VERSION};"
                    " give another file"
                )
            db.executescript(_SCHEMA)
            db.execute(f"pragma user_version = {SCHEMA_VERSION}")
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"{self._path}: can't be opened: {error}") from error
        return db

    async def put_all(self, documents: Sequence[tuple[Document, float]]) -> None:
        """Many in one transaction."""
        now_s = self._unix_time()
        rows = [
            (d.entry_id, now_s + ttl_s, json.dumps(dict(d.facts)), d.vector, d.body)
            for d, ttl_s in documents
        ]

        def write() -> None:
            with _transaction(self._writer) as db:
                db.executemany(
                    "insert or replace into entries (entry_id, until_s, facts, vector, body)"
                    " values (?, ?, ?, ?, ?)",
                    rows,
                )

        await self._run(self._writes, write)

    async def body(self, entry_id: str) -> bytes | None:
        def read() -> bytes | None:
            row = self._reader.execute(
                "select body from entries where entry_id = ? and facts is not null and until_s > ?",
                (entry_id, self._unix_time()),
            ).fetchone()
            return None if row is None else bytes(row[0])

        return await self._run(self._reads, read)

    async def remove(self, entry_ids: Sequence[str]) -> int:
        until_s = self._unix_time() + TOMBSTONE_S

        def write() -> int:
            removed = 0
            with _transaction(self._writer) as db:
                for entry_id in entry_ids:
                    found = db.execute(
                        "delete from entries where entry_id = ? and facts is not null", (entry_id,)
                    ).rowcount
                    if found:
                        db.execute(
                            "insert into entries (entry_id, until_s) values (?, ?)",
                            (entry_id, until_s),
                        )
                    removed += found
            return removed

        return await self._run(self._writes, write)

    async def changes(self, cursor: str, *, limit: int) -> tuple[Sequence[Change], str]:
        after = int(cursor or 0)

        def read() -> list[tuple[Any, ...]]:
            return self._reader.execute(
                "select seq, entry_id, facts, vector from entries"
                " where seq > ? and until_s > ? order by seq limit ?",
                (after, self._unix_time(), limit),
            ).fetchall()

        rows = await self._run(self._reads, read)
        changes = [
            Change(
                entry_id=entry_id,
                removed=facts is None,
                facts=None if facts is None else json.loads(facts),
                vector=bytes(vector or b""),
            )
            for _, entry_id, facts, vector in rows
            if cursor or facts is not None  # old tombstones are no news to who begins
        ]
        return changes, str(rows[-1][0] if rows else after)

    async def notes(self) -> Mapping[str, str]:
        def read() -> dict[str, str]:
            return dict(self._reader.execute("select name, text from notes").fetchall())

        return await self._run(self._reads, read)

    async def put_note(self, name: str, text: str) -> None:
        def write() -> None:
            with _transaction(self._writer) as db:
                db.execute("delete from notes where name = ?", (name,))
                if text:
                    db.execute("insert into notes values (?, ?)", (name, text))

        await self._run(self._writes, write)

    async def add_note(self, name: str, amount: float) -> None:
        def write() -> None:
            with _transaction(self._writer) as db:
                db.execute(
                    "insert into notes values (?, ?) on conflict (name)"
                    " do update set text = cast(text as real) + excluded.text",
                    (name, str(amount)),
                )

        await self._run(self._writes, write)

    async def sweep(self) -> None:
        """Forget what has expired, and give its space back."""
        now_s = self._unix_time()

        def write() -> None:
            with _transaction(self._writer) as db:
                db.execute("delete from entries where until_s <= ?", (now_s,))
            self._writer.execute(f"pragma incremental_vacuum({VACUUM_PAGES})").fetchall()

        await self._run(self._writes, write)

    async def aclose(self) -> None:
        """Finish what was begun, then close."""
        for pool, db in ((self._writes, self._writer), (self._reads, self._reader)):
            await self._run(pool, db.close)
            pool.shutdown(wait=False)

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error
        except RuntimeError as error:  # a pool that is shut down
            raise StoreUnavailable(f"{self._path}: closed") from error


class _transaction:
    """`with` one: committed at its end, rolled back on any error."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> sqlite3.Connection:
        self._db.execute("begin immediate")
        return self._db

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._db.execute("commit" if kind is None else "rollback")
