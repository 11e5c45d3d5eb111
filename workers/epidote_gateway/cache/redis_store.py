"""This file is about answers in Redis or Valkey: the store of several gateways on several hosts.

    {prefix}:entry:ID   hash: facts, vector, body; expires by itself
    {prefix}:notes      hash of what gateways share besides; see `sharing`
    {prefix}:changes    stream of {id, op}: how gateways learn what others kept and removed

Both keys of a write are in one MULTI and, by the braces, in one slot of a cluster. The stream is
bounded: a gateway that falls behind its end reads all entries anew.
"""

import json
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from epidote_gateway.cache.protocols import Change, Document
from epidote_gateway.cache.store_errors import StoreUnavailable

Result = TypeVar("Result")
STREAM_LENGTH = 100_000  # changes; a gateway polls several times a second
TIMEOUT_S = 2.0  # of one command; longer and the fleet answers sooner


class RedisStore:
    """See `protocols.DocumentStore`."""

    def __init__(self, url: str, *, prefix: str = "epidote") -> None:
        """`url` as redis-py reads it: `redis://host:6379/0`, `rediss://…`, `unix:///path`."""
        self._redis: Any = Redis.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        )
        self._entry = f"{{{prefix}}}:entry:"
        self._changes = f"{{{prefix}}}:changes"
        self._notes = f"{{{prefix}}}:notes"

    async def put_all(self, documents: Sequence[tuple[Document, float]]) -> None:
        """Many in one transaction."""
        pipe = self._redis.pipeline(transaction=True)
        for document, ttl_s in documents:
            key = self._entry + document.entry_id
            fields = {
                "facts": json.dumps(dict(document.facts)),
                "vector": document.vector,
                "body": document.body,
            }
            pipe.hset(key, mapping=fields)
            pipe.pexpire(key, max(1, int(ttl_s * 1e3)))
            self._tell(pipe, document.entry_id, "put")
        await self._done(pipe.execute())

    async def body(self, entry_id: str) -> bytes | None:
        return cast(
            bytes | None, await self._done(self._redis.hget(self._entry + entry_id, "body"))
        )

    async def remove(self, entry_ids: Sequence[str]) -> int:
        if not entry_ids:
            return 0
        pipe = self._redis.pipeline(transaction=True)
        for entry_id in entry_ids:
            pipe.delete(self._entry + entry_id)
        for entry_id in entry_ids:
            self._tell(pipe, entry_id, "remove")
        answers = await self._done(pipe.execute())
        return sum(answers[: len(entry_ids)])

    def _tell(self, pipe: Any, entry_id: str, op: str) -> None:
        pipe.xadd(self._changes, {"id": entry_id, "op": op}, maxlen=STREAM_LENGTH, approximate=True)

    async def changes(self, cursor: str, *, limit: int) -> tuple[Sequence[Change], str]:
        """Cursors: `scan:N:ID` while reading all entries, `ID` (of the stream) afterwards."""
        if not cursor:
            return await self._scan("0", await self._last_id(), limit)
        if cursor.startswith("scan:"):
            _, place, last_id = cursor.split(":")
            return await self._scan(place, last_id, limit)
        if await self._is_behind(cursor):
            return await self._scan("0", await self._last_id(), limit)
        found = await self._done(
            self._redis.xrange(self._changes, min=f"({cursor}", max="+", count=limit)
        )
        told = {fields[b"id"].decode(): fields[b"op"] == b"put" for _, fields in found}
        changes = await self._read([entry_id for entry_id, is_put in told.items() if is_put])
        gone = [id for id, is_put in told.items() if not is_put]
        changes += [Change(entry_id=id, removed=True) for id in gone]
        return changes, found[-1][0].decode() if found else cursor

    async def _scan(self, place: str, last_id: str, limit: int) -> tuple[Sequence[Change], str]:
        changes: list[Change] = []
        while not changes:  # a slot range without any of our keys is not the end
            next_place, keys = await self._done(
                self._redis.scan(int(place), match=_escaped(self._entry) + "*", count=limit)
            )
            changes = await self._read([key.decode()[len(self._entry) :] for key in keys])
            place = str(next_place)
            if not next_place:
                return changes, last_id
        return changes, f"scan:{place}:{last_id}"

    async def _read(self, entry_ids: Sequence[str]) -> list[Change]:
        if not entry_ids:
            return []
        pipe = self._redis.pipeline(transaction=False)
        for entry_id in entry_ids:
            pipe.hmget(self._entry + entry_id, "facts", "vector")
        rows = await self._done(pipe.execute())
        return [
            Change(entry_id=entry_id, removed=False, facts=json.loads(facts), vector=vector or b"")
            for entry_id, (facts, vector) in zip(entry_ids, rows, strict=True)
            if facts is not None
        ]

    async def _last_id(self) -> str:
        """Read before the entries: what is kept while they are read comes twice, never not."""
        found = await self._done(self._redis.xrevrange(self._changes, count=1))
        return found[0][0].decode() if found else "0-0"

    async def _is_behind(self, cursor: str) -> bool:
        """Whether changes after `cursor` have already left the stream, or the server is a new one.

        Then everything is read again; entries removed meanwhile are found out when asked for.
        """
        first = await self._done(self._redis.xrange(self._changes, count=1))
        if not first:
            return cursor != "0-0"
        return cursor != "0-0" and _order(first[0][0].decode()) > _order(cursor)

    async def notes(self) -> Mapping[str, str]:
        found = await self._done(self._redis.hgetall(self._notes))
        return {name.decode(): text.decode() for name, text in found.items()}

    async def put_note(self, name: str, text: str) -> None:
        if text:
            await self._done(self._redis.hset(self._notes, name, text))
        else:
            await self._done(self._redis.hdel(self._notes, name))

    async def add_note(self, name: str, amount: float) -> None:
        await self._done(self._redis.hincrbyfloat(self._notes, name, amount))

    async def sweep(self) -> None:
        """The server expires entries by itself."""

    async def aclose(self) -> None:
        await self._redis.aclose()

    async def _done(self, command: Awaitable[Result]) -> Result:
        try:
            return await command
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"redis: {type(error).__name__}: {error}") from error


def _order(stream_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = stream_id.partition("-")
    return int(milliseconds), int(sequence)


def _escaped(prefix: str) -> str:
    """For a glob pattern, where brackets and stars have meanings."""
    return "".join(f"\\{c}" if c in "*?[]\\" else c for c in prefix)
