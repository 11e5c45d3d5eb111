"""This file is about two gateways on one store: a report or a policy told to one counts in both."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epidote_gateway.answers import Facts
from epidote_gateway.cache.cached_answers import CachedAnswers
from epidote_gateway.cache.fakes import CountingAnswers, FakeClock, make_job
from epidote_gateway.cache.policy import parse_policy
from epidote_gateway.cache.policy_file import PolicyFile
from epidote_gateway.cache.redis_store import RedisStore
from epidote_gateway.cache.response_cache import ResponseCache
from epidote_gateway.cache.sharing import SHARE_S
from epidote_gateway.cache.sqlite_store import SqliteStore
from epidote_gateway.cache.store_errors import StoreUnavailable

SPEC: dict[str, Any] = {"categories": [{"name": "default", "threshold": 0.6}]}
A, B = "how do I reset the password of my account", "how do I reset my account password"


@pytest.fixture(params=["sqlite", "valkey"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Any:
    """Opens one store again and again."""
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "shared.sqlite3", unix_time=clock.unix)
    url = request.getfixturevalue("valkey_url")
    return lambda: RedisStore(url, prefix=tmp_path.name)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def threshold(cache: ResponseCache) -> float:
    return cache.state.bounds(cache.policy.category("default")).threshold


async def wrong_hit(cache: ResponseCache) -> str:
    """The id of an entry that was just served."""
    for text in (A, B):
        facts = Facts()
        async for _ in CachedAnswers(CountingAnswers(), cache).stream(make_job(text), facts):
            pass
    assert facts.cache is not None
    return facts.cache.entry_id


async def test_a_report_counts_in_the_other_gateway_and_after_a_restart(
    make_cache: Any, open_store: Any
) -> None:
    one, other = (
        await make_cache(SPEC, store=open_store()),
        await make_cache(SPEC, store=open_store()),
    )
    assert await one.report_wrong(await wrong_hit(one), None) == pytest.approx(0.61)
    await until(lambda: threshold(other) == pytest.approx(0.61))
    await other.report_wrong(await wrong_hit(other), None)
    await until(lambda: threshold(one) == pytest.approx(0.62))
    await one.aclose()
    await other.aclose()
    again = await make_cache(SPEC, store=open_store())
    await until(lambda: threshold(again) == pytest.approx(0.62))
    await again.apply(parse_policy({"categories": [{"name": "default", "threshold": 0.7}]}))
    assert threshold(again) == pytest.approx(0.7)


async def test_a_policy_put_in_one_gateway_is_in_force_in_the_other_and_after_a_restart(
    make_cache: Any, open_store: Any
) -> None:
    assert SHARE_S <= 2.0  # two looks and making the judges: within five seconds
    one, other = (
        await make_cache(SPEC, store=open_store()),
        await make_cache(SPEC, store=open_store()),
    )
    put = parse_policy({"categories": [{"name": "default", "threshold": 0.75}]})
    await one.put_policy(put)
    assert one.policy == put
    await until(lambda: other.policy == put)
    await other.put_policy(parse_policy({**SPEC, "epoch": "2"}))
    await until(lambda: one.policy.epoch == "2")
    await one.aclose()
    again = await make_cache(SPEC, store=open_store())
    await until(lambda: again.policy.epoch == "2")


async def test_a_changed_file_replaces_what_was_put_over_the_one_before(
    make_cache: Any, tmp_path: Path, clock: FakeClock
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("epoch: file")

    async def gateway() -> ResponseCache:
        made: ResponseCache = await make_cache({"epoch": "file"}, policy_file=PolicyFile(file))
        return made

    one, other = await gateway(), await gateway()
    await one.put_policy(parse_policy({"epoch": "put"}))
    await until(lambda: other.policy.epoch == "put")
    file.write_text("epoch: changed")
    await until(lambda: one.policy.epoch == other.policy.epoch == "changed")
    file.write_text("epoch: file")
    await until(lambda: one.policy.epoch == other.policy.epoch == "file")
    again = await gateway()
    await again.loaded()
    await again._sharing.round()  # type: ignore[union-attr]
    assert again.policy.epoch == "file"


async def test_gateways_of_other_weights_keep_their_own_policy(
    make_cache: Any, open_store: Any
) -> None:
    one = await make_cache(SPEC, store=open_store(), revision="1")
    other = await make_cache(SPEC, store=open_store(), revision="2")
    await one.put_policy(parse_policy({"epoch": "put"}))
    await other._sharing.round()
    assert other.policy == parse_policy(SPEC)


class Away(SqliteStore):
    """Takes notes only while it is there."""

    is_away = True

    async def put_note(self, name: str, text: str) -> None:
        self._check()
        await super().put_note(name, text)

    async def add_note(self, name: str, amount: float) -> None:
        self._check()
        await super().add_note(name, amount)

    def _check(self) -> None:
        if self.is_away:
            raise StoreUnavailable("gone fishing")


async def test_while_the_store_is_away_reports_are_owed_and_a_put_policy_says_so(
    make_cache: Any, tmp_path: Path
) -> None:
    store = Away(tmp_path / "away.sqlite3")
    cache = await make_cache(SPEC, store=store)
    assert await cache.report_wrong(await wrong_hit(cache), None) == pytest.approx(0.61)
    with pytest.raises(StoreUnavailable, match="in this gateway only"):
        await cache.put_policy(parse_policy({**SPEC, "epoch": "2"}))
    assert cache.policy.epoch == "2"
    store.is_away = False
    await cache._sharing.round()
    assert [float(text) for text in (await store.notes()).values()] == [0.01]
