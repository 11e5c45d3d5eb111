"""Both stores against the same expectations: one file, and a real Valkey server."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from epidote_gateway.cache.fakes import FakeClock
from epidote_gateway.cache.protocols import Change, Document, DocumentStore
from epidote_gateway.cache.redis_store import RedisStore
from epidote_gateway.cache.sqlite_store import SqliteStore
from epidote_gateway.cache.store_errors import StoreUnavailable
from epidote_gateway.cache.stores import check_url, default_path, open_store


@pytest.fixture(params=["sqlite", "valkey"])
async def pair(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[DocumentStore, DocumentStore]]:
    """Two gateways' views of one store."""
    stores: list[DocumentStore]
    if request.param == "sqlite":
        stores = [SqliteStore(tmp_path / "a.sqlite3") for _ in range(2)]
    else:
        url = request.getfixturevalue("valkey_url")
        stores = [RedisStore(url, prefix=tmp_path.name) for _ in range(2)]
    yield stores[0], stores[1]
    for store in stores:
        await store.aclose()


def document(number: int, size: int = 100) -> Document:
    return Document(
        entry_id=f"id-{number}",
        facts={"number": number},
        vector=bytes([number % 256]) * 16,
        body=bytes([number % 256]) * size,
    )


async def all_changes(
    store: DocumentStore, cursor: str = "", limit: int = 7
) -> tuple[dict[str, Change], str]:
    told: dict[str, Change] = {}
    while True:
        changes, cursor = await store.changes(cursor, limit=limit)
        if not changes:
            return told, cursor
        told |= {change.entry_id: change for change in changes}


async def test_what_one_keeps_the_other_finds(pair: Any) -> None:
    one, other = pair
    await one.put_all([(document(n), 60.0) for n in range(30)])
    assert await other.body("id-3") == document(3).body
    assert await other.body("id-99") is None
    told, _ = await all_changes(other)
    assert {id: dict(c.facts or {}) for id, c in told.items()} == {
        f"id-{n}": {"number": n} for n in range(30)
    }
    assert told["id-5"].vector == document(5).vector


async def test_notes_are_shared_and_amounts_from_both_add_up(pair: Any) -> None:
    one, other = pair
    assert await other.notes() == {}
    await one.put_note("policy", "é{1}")
    await asyncio.gather(*(store.add_note("sum", 0.01) for store in (one, other) * 5))
    found = await other.notes()
    assert found["policy"] == "é{1}"
    assert float(found["sum"]) == pytest.approx(0.1)
    await other.put_note("policy", "new")
    await other.put_note("sum", "")
    assert await one.notes() == {"policy": "new"}


async def test_changes_go_on_from_where_they_were_read(pair: Any) -> None:
    one, other = pair
    await one.put_all([(document(n), 60.0) for n in range(10)])
    _, cursor = await all_changes(other)
    assert (await all_changes(other, cursor))[0] == {}
    await one.put_all([(document(20), 60.0)])
    assert await one.remove(["id-3", "id-99"]) == 1
    told, cursor = await all_changes(other, cursor)
    assert told["id-20"].removed is False
    assert told["id-3"].removed is True
    assert "id-5" not in told
    assert (await all_changes(other, cursor))[0] == {}
    assert await other.body("id-3") is None


async def test_who_begins_anew_is_told_of_the_living_only(pair: Any) -> None:
    one, other = pair
    await one.put_all([(document(n), 60.0) for n in range(5)])
    await one.remove(["id-0", "id-1"])
    told, cursor = await all_changes(other)
    assert {id for id, c in told.items() if not c.removed} == {"id-2", "id-3", "id-4"}
    await one.remove(["id-2"])
    assert (await all_changes(other, cursor))[0]["id-2"].removed


async def test_an_entry_may_be_written_again(pair: Any) -> None:
    one, other = pair
    await one.put_all([(document(1), 60.0)])
    _, cursor = await all_changes(other)
    newer = Document(entry_id="id-1", facts={"number": 2}, vector=b"", body=b"newer")
    await one.put_all([(newer, 60.0)])
    assert await other.body("id-1") == b"newer"
    told, _ = await all_changes(other, cursor)
    assert dict(told["id-1"].facts or {}) == {"number": 2}


async def test_what_has_expired_is_not_found(pair: Any) -> None:
    one, _ = pair
    await one.put_all([(document(1), 0.05), (document(2), 3600.0)])
    async with asyncio.timeout(60):
        while await one.body("id-1") is not None:
            await asyncio.sleep(0.01)
    await one.sweep()
    assert set((await all_changes(one))[0]) == {"id-2"}
    assert await one.remove(["id-2"]) == 1


async def test_many_at_once_are_all_there(pair: Any) -> None:
    one, other = pair
    await asyncio.gather(
        *(s.put_all([(document(2 * n + i), 60.0)]) for n in range(50) for i, s in enumerate(pair))
    )
    assert len((await all_changes(other))[0]) == 100
    bodies = await asyncio.gather(*(one.body(f"id-{n}") for n in range(100)))
    assert bodies == [document(n).body for n in range(100)]


async def test_a_gateway_that_fell_behind_reads_everything_again(
    valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epidote_gateway.cache.redis_store.STREAM_LENGTH", 10)
    one, other = (RedisStore(valkey_url, prefix=tmp_path.name) for _ in range(2))
    await one.put_all([(document(0), 3600.0)])
    _, cursor = await all_changes(other)
    for n in range(1, 1000):  # approximate trimming keeps whole nodes of a hundred
        await one.put_all([(document(n), 3600.0)])
    told, _ = await all_changes(other, cursor, limit=200)
    assert len(told) == 1000
    for store in (one, other):
        await store.aclose()


async def test_a_server_that_is_away_is_told_as_such(tmp_path: Path) -> None:
    store = RedisStore(f"unix://{tmp_path}/nobody")
    for call in (store.body("x"), store.put_all([(document(1), 1.0)]), store.remove(["x"])):
        with pytest.raises(StoreUnavailable, match="redis: "):
            await call
    await store.aclose()


async def test_tombstones_and_expired_rows_leave_the_file(tmp_path: Path) -> None:
    clock = FakeClock()
    store = SqliteStore(tmp_path / "a.sqlite3", unix_time=clock.unix)
    await store.put_all([(document(n, 10_000), 60.0) for n in range(200)])
    await store.remove([f"id-{n}" for n in range(100)])
    clock.pass_s(4000)
    await store.sweep()
    with closing(sqlite3.connect(tmp_path / "a.sqlite3")) as db:
        assert db.execute("select count(*) from entries").fetchone() == (0,)
    await store.aclose()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.body("x")


@pytest.mark.parametrize("content", [b"no database at all, but text " * 100, None])
def test_a_file_that_is_no_store_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "a.sqlite3"
    if content is not None:
        file.write_bytes(content)
    else:
        with closing(sqlite3.connect(file)) as db:
            db.execute("pragma user_version = 99")
    with pytest.raises(StoreUnavailable, match=r"a\.sqlite3"):
        SqliteStore(file)


@pytest.mark.parametrize("url", ["mongodb://x", "sqlite:", "/some/path", "redis:"])
def test_an_unknown_url_is_refused(url: str) -> None:
    with pytest.raises(StoreUnavailable, match="must be sqlite:PATH or redis:"):
        open_store(url)


def test_a_file_that_cannot_be_made_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, told in ((tmp_path, "is a directory"), (tmp_path / "file" / "a", "is no directory")):
        with pytest.raises(StoreUnavailable, match=told):
            check_url(f"sqlite:{path}")
    check_url(f"sqlite:{tmp_path}/new/folder/a.sqlite3")
    assert not (tmp_path / "new").exists()


def test_the_default_file_is_in_the_users_cache() -> None:
    environ = {"XDG_CACHE_HOME": "/x"}
    assert default_path(environ=environ) == Path("/x/epidote/answers.sqlite3")
    path = default_path("/models/Qwen 3", environ)
    assert path == Path("/x/epidote/answers-models-Qwen-3.sqlite3")


WRITER = """
import asyncio, sys
from pathlib import Path
from epidote_gateway.cache.protocols import Document
from epidote_gateway.cache.sqlite_store import SqliteStore

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    n = 0
    while True:
        batch = [Document(entry_id=f"id-{n + i}", facts={"number": n + i}, vector=b"v",
                          body=(b"%d|" % (n + i)) * 5000) for i in range(5)]
        await store.put_all([(d, 3600.0) for d in batch])
        n += 5
        if n % 15 == 0:
            await store.remove([f"id-{n - 15}"])
        print(n, flush=True)

asyncio.run(main())
"""


async def test_kill_9_amid_writes_leaves_whole_entries_only(tmp_path: Path) -> None:
    for round in range(3):
        file = tmp_path / f"{round}.sqlite3"
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        promised = 0
        while promised < 60 + 35 * round:
            promised = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        lines = writer.communicate()[0].split()
        promised = int(lines[-1]) if lines else promised
        store = SqliteStore(file)
        told, _ = await all_changes(store, limit=100)
        living = {id: change for id, change in told.items() if not change.removed}
        removed = {f"id-{n}" for n in range(0, promised - 14, 15)}
        assert not removed & set(living)
        removing = {f"id-{promised - 10}"} if promised % 15 == 10 else set()  # done, but not told
        assert {f"id-{n}" for n in range(promised)} - removed - removing <= set(living)
        for entry_id, change in living.items():
            number = dict(change.facts or {})["number"]
            assert entry_id == f"id-{number}"
            assert await store.body(entry_id) == (b"%d|" % number) * 5000
        with closing(sqlite3.connect(file)) as db:
            assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        await store.aclose()


def test_a_store_is_its_owners_alone(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "cache.sqlite")
    modes = {path.name: path.stat().st_mode & 0o077 for path in tmp_path.iterdir()}
    assert modes
    assert set(modes.values()) == {0}
