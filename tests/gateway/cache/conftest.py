"""Fixtures for the cache's tests: a cache over a file, judged by words instead of a model."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from epidote_gateway.cache.fakes import FakeClock, WordMeaning
from epidote_gateway.cache.policy import parse_policy
from epidote_gateway.cache.response_cache import Collaborators, ResponseCache
from epidote_gateway.cache.sqlite_store import SqliteStore


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
