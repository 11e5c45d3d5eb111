"""A cache over time: restarts, several gateways, changed policies, many clients at once."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from epidote_core.generation import FinishReason, TokenChunk
from epidote_gateway.answers import Facts, Job
from epidote_gateway.cache.cached_answers import CachedAnswers
from epidote_gateway.cache.controls import CacheControls
from epidote_gateway.cache.fakes import CountingAnswers, FakeClock, WordEmbedder, make_job, say
from epidote_gateway.cache.policy import parse_policy
from epidote_gateway.cache.policy_file import PolicyFile
from epidote_gateway.cache.response_cache import ResponseCache
from epidote_gateway.cache.selection import Selection
from epidote_gateway.cache.sqlite_store import SqliteStore
from epidote_gateway.cache.store_errors import StoreUnavailable

SPEC: dict[str, Any] = {"categories": [{"name": "default", "threshold": 0.6}]}
A, B = "how do I reset the password of my account", "how do I reset my account password"


async def ask(cache: ResponseCache, fleet: CountingAnswers, job: Job) -> tuple[str, str]:
    facts = Facts()
    async with aclosing(CachedAnswers(fleet, cache).stream(job, facts)) as stream:
        text = "".join([c.text async for item in stream for c in item])
    assert facts.cache is not None
    return text, facts.cache.header().decode()


@pytest.fixture
def fleet() -> CountingAnswers:
    return CountingAnswers()


async def test_answers_survive_a_restart(
    make_cache: Any, fleet: CountingAnswers, clock: FakeClock, tmp_path: Path
) -> None:
    def store() -> SqliteStore:
        return SqliteStore(tmp_path / "kept.sqlite3", unix_time=clock.unix)

    before = await make_cache(SPEC, store=store())
    text, _ = await ask(before, fleet, make_job(A))
    await before.aclose()
    clock.pass_s(100)
    after = await make_cache(SPEC, store=store())
    [entry] = after.state.catalog
    header = f"hit; kind=exact; category=default; age=100; id={entry.entry_id}"
    assert await ask(after, fleet, make_job(A)) == (text, header)
    assert "kind=semantic" in (await ask(after, fleet, make_job(B)))[1]
    assert len(fleet.jobs) == 1


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_gateways_on_one_store_serve_each_others_answers(
    make_cache: Any, fleet: CountingAnswers
) -> None:
    one, other = await make_cache(SPEC), await make_cache(SPEC)
    await ask(one, fleet, make_job(A))
    await until(lambda: len(other.state.catalog) == 1)
    assert "kind=semantic" in (await ask(other, fleet, make_job(B)))[1]
    entry_id = next(iter(other.state.catalog)).entry_id
    assert other.evict(entry_id)
    await other.flush_writes()
    # The other one has not heard of it, but asks the store before it serves.
    assert (await ask(one, fleet, make_job(A)))[1].startswith("miss")


async def test_an_answer_gone_from_the_store_is_a_miss_and_is_forgotten(
    make_cache: Any, fleet: CountingAnswers, tmp_path: Path
) -> None:
    cache = await make_cache(SPEC)
    await ask(cache, fleet, make_job(A))
    await cache.flush_writes()
    entry = next(iter(cache.state.catalog))
    vandal = SqliteStore(tmp_path / "answers.sqlite3")
    await vandal.remove([entry.entry_id])
    await vandal.aclose()
    assert (await ask(cache, fleet, make_job(B)))[1].startswith("miss")
    assert cache.state.catalog.get(entry.entry_id) is None


class Moody(SqliteStore):
    """A store that is away while `is_away`."""

    is_away = False

    async def body(self, entry_id: str) -> bytes | None:
        self._check()
        return await super().body(entry_id)

    async def put_all(self, documents: Any) -> None:
        self._check()
        await super().put_all(documents)

    async def remove(self, entry_ids: Any) -> int:
        self._check()
        return await super().remove(entry_ids)

    def _check(self) -> None:
        if self.is_away:
            raise StoreUnavailable("gone fishing")


async def test_while_the_store_is_away_the_fleet_answers_and_removals_are_owed(
    make_cache: Any, fleet: CountingAnswers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epidote_gateway.cache.keeper.RETRY_S", 0.01)
    store = Moody(tmp_path / "moody.sqlite3")
    cache = await make_cache(SPEC, store=store)
    await ask(cache, fleet, make_job(A))
    await cache.flush_writes()
    entry = next(iter(cache.state.catalog))
    store.is_away = True
    text, header = await ask(cache, fleet, make_job(A))
    assert (text, header) == (
        say(make_job(A)),
        "miss; why=store-unavailable; category=default; similarity=1.000",
    )
    await cache.invalidate(Selection())
    store.is_away = False
    await cache.flush_writes()
    assert await store.body(entry.entry_id) is None


async def test_a_changed_policy_counts_at_once_and_loses_nothing(
    make_cache: Any, fleet: CountingAnswers
) -> None:
    cache = await make_cache({"categories": [{"name": "default", "threshold": 0.99}]})
    await ask(cache, fleet, make_job(A))
    assert (await ask(cache, fleet, make_job(B)))[1].startswith("miss; why=below-threshold")
    await cache.apply(parse_policy(SPEC))
    assert len(cache.state.catalog) == 2
    again = "how do I reset account password"
    assert "kind=semantic" in (await ask(cache, fleet, make_job(again)))[1]
    await cache.apply(parse_policy({**SPEC, "enabled": False}))
    assert (await ask(cache, fleet, make_job(A)))[1] == "bypass; why=disabled"
    await cache.apply(parse_policy(SPEC))
    assert (await ask(cache, fleet, make_job(A)))[1].startswith("hit; kind=exact")
    await cache.apply(parse_policy({**SPEC, "epoch": "2"}))
    assert (await ask(cache, fleet, make_job(A)))[1].startswith("miss")


async def test_a_new_category_takes_over_the_entries_that_belong_to_it(
    make_cache: Any, fleet: CountingAnswers
) -> None:
    cache = await make_cache(SPEC)
    await ask(cache, fleet, make_job(A))
    faq = {"name": "faq", "threshold": 0.6, "exemplars": ["password"]}
    await cache.apply(parse_policy({"categories": [faq]}))
    assert [entry.category for entry in cache.state.catalog] == ["faq"]
    assert "kind=semantic; category=faq" in (await ask(cache, fleet, make_job(B)))[1]


async def test_another_sentence_model_embeds_what_is_there_anew(
    make_cache: Any, fleet: CountingAnswers
) -> None:
    cache = await make_cache(SPEC)
    await ask(cache, fleet, make_job(A))
    old = cache.state.judges.embedder
    await cache.apply(parse_policy({**SPEC, "embedder": {"model": "other"}}))
    assert old.is_closed
    assert (await ask(cache, fleet, make_job(A)))[1].startswith("hit; kind=exact")
    await until(lambda: not cache.state.without_vector and cache.state.catalog.num_partitions)
    assert "kind=semantic" in (await ask(cache, fleet, make_job(B)))[1]
    assert len(fleet.jobs) == 1


async def test_questions_that_a_failing_model_could_not_embed_are_embedded_later(
    make_cache: Any, fleet: CountingAnswers
) -> None:
    cache = await make_cache(SPEC)
    await ask(cache, fleet, make_job(A))
    other = cache._with.meaning.embedders.setdefault("other", WordEmbedder(name="other"))
    other.fails = True
    await cache.apply(parse_policy({**SPEC, "embedder": {"model": "other"}}))
    swept = cache._maintenance._round
    with pytest.raises(RuntimeError):
        await cache._maintenance.tidy()
    assert cache._maintenance._round > swept
    other.fails = False
    await until(lambda: cache.state.catalog.num_partitions)
    assert "kind=semantic" in (await ask(cache, fleet, make_job(B)))[1]


async def test_a_policy_that_cannot_be_made_leaves_the_old_one(
    make_cache: Any, fleet: CountingAnswers
) -> None:
    cache = await make_cache(SPEC)
    await ask(cache, fleet, make_job(A))

    async def fail(policy: Any) -> Any:
        raise RuntimeError("no such model")

    cache._with.meaning.embedder = fail
    with pytest.raises(RuntimeError):
        await cache.apply(parse_policy({"embedder": {"model": "none"}}))
    assert cache.policy == parse_policy(SPEC)
    assert "kind=semantic" in (await ask(cache, fleet, make_job(B)))[1]


async def test_a_changed_file_is_followed(
    make_cache: Any, fleet: CountingAnswers, tmp_path: Path
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("categories: [{name: default, threshold: 0.99}]")
    cache = await make_cache({"categories": []}, policy_file=PolicyFile(file))
    await cache.apply(PolicyFile(file).policy)
    await ask(cache, fleet, make_job(A))
    assert (await ask(cache, fleet, make_job(B)))[1].startswith("miss")
    file.write_text("categories: [{name: default, threshold: 0.6}]")
    await until(lambda: cache.policy.category("default").threshold == 0.6)
    again = "how do I reset account password"
    assert "kind=semantic" in (await ask(cache, fleet, make_job(again)))[1]


async def test_limits_hold_and_nothing_is_left_in_the_store(
    make_cache: Any, fleet: CountingAnswers, tmp_path: Path
) -> None:
    cache = await make_cache({**SPEC, "limits": {"maxEntries": 10}})
    for number in range(40):
        await ask(cache, fleet, make_job(f"question {number}"))
        assert len(cache.state.catalog) <= 10
    await cache.flush_writes()
    kept = {entry.entry_id for entry in cache.state.catalog}
    changes, _ = await cache.state.keeper.changes("", 100)
    assert {change.entry_id for change in changes} == kept


async def test_pressure_accepts_more_and_marks_it(
    make_cache: Any, fleet: CountingAnswers, clock: FakeClock
) -> None:
    adaptation = {"thresholdStep": 0.3, "thresholdFloor": 0.6}
    category = {"name": "default", "threshold": 0.97, "loadAdaptation": adaptation}
    cache = await make_cache(
        {"categories": [category], "pressure": {"holdSeconds": 10, "releaseSeconds": 10}}
    )
    await ask(cache, fleet, make_job(A))
    no_store = CacheControls(no_store=True)
    assert (await ask(cache, fleet, make_job(B, controls=no_store)))[1].startswith("bypass")
    cache.tell_pressure(1.0)
    clock.pass_s(10)
    _, header = await ask(cache, fleet, make_job(B))
    assert "; relaxed; id=" in header
    assert "relaxed" not in (await ask(cache, fleet, make_job(A)))[1]
    counted = cache.state.metrics.hits.labels("default", "semantic", "true")._value.get()
    assert counted == 1
    cache.tell_pressure(0.0)
    cache.state.bounds(cache.policy.category("default"))
    clock.pass_s(10)
    assert (await ask(cache, fleet, make_job(B)))[1].startswith("miss; why=below-threshold")


class Numbered(CountingAnswers):
    """Every answer is a new one: its number is all that it says."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock
        self.ended_s: dict[int, float] = {}

    async def stream(self, job: Job, facts: Facts) -> Any:
        number = len(self.jobs) + 1
        self.jobs.append(job)
        for letter in f"{number}":
            await asyncio.sleep(0)
            yield [TokenChunk(index=0, token_ids=(1,), text=letter)]
        self.ended_s[number] = self.clock()
        yield [TokenChunk(index=0, token_ids=(), text="", finish_reason=FinishReason.STOP)]


async def test_mixed_operations_of_many_clients_lose_and_confuse_nothing(
    make_cache: Any, clock: FakeClock
) -> None:
    """10,000 by 32 clients: ask, invalidate, evict, let time pass."""
    ttl_s = 50.0
    cache = await make_cache({"categories": [{"name": "default", "ttlSeconds": ttl_s}]})
    fleet = Numbered(clock)
    answers = CachedAnswers(fleet, cache)
    rng = Random(7)
    evicted: set[str] = set()
    floor = 0  # answers up to this number were begun before the last invalidation
    num_hits = num_misses = num_operations = 0

    async def put_question(question: str) -> bool:
        """True: a hit. Everything that was forbidden when it was put stays forbidden."""
        forbidden, oldest, asked_s = set(evicted), floor, clock()
        facts = Facts()
        async with aclosing(answers.stream(make_job(question), facts)) as stream:
            number = int("".join([c.text async for item in stream for c in item]))
        assert fleet.jobs[number - 1].messages == make_job(question).messages
        assert number > oldest
        outcome: Any = facts.cache
        if outcome.status == "hit":
            assert outcome.entry_id not in forbidden
            assert asked_s - fleet.ended_s[number] < ttl_s
        return outcome.status == "hit"

    async def client() -> None:
        nonlocal num_hits, num_misses, floor, num_operations
        for _ in range(313):
            num_operations += 1
            kind = rng.random()
            question = f"question number {rng.randrange(60)}"
            if kind < 0.90:
                hit = await put_question(question)
                num_hits, num_misses = num_hits + hit, num_misses + (not hit)
            elif kind < 0.94:
                for entry in [e for e in cache.state.catalog if e.text == question]:
                    assert cache.evict(entry.entry_id)
                    evicted.add(entry.entry_id)
            elif kind < 0.95:
                await cache.invalidate(Selection(category="default"))
                floor = len(fleet.jobs)
            else:
                clock.pass_s(rng.random() * 4)
            if rng.random() < 0.2:
                await asyncio.sleep(0)

    await asyncio.gather(*(client() for _ in range(32)))
    assert num_operations > 10_000
    assert num_hits > 1000
    assert num_misses == len(fleet.jobs) + _collapsed(cache)
    for number in range(60):  # nothing that was kept is lost
        await put_question(f"question number {number}")
        assert await put_question(f"question number {number}")
    await cache.flush_writes()
    _check_books(cache)
    stored = {change.entry_id for change in (await cache.state.keeper.changes("", 10_000))[0]}
    assert {entry.entry_id for entry in cache.state.catalog} == stored


def _collapsed(cache: ResponseCache) -> int:
    return int(cache.state.metrics.misses.labels("default", "collapsed")._value.get())


def _check_books(cache: ResponseCache) -> None:
    """Counts, bytes, shelves and partitions agree with the entries."""
    catalog = cache.state.catalog
    entries = list(catalog)
    assert catalog.num_bytes == sum(entry.num_bytes for entry in entries)
    assert sum(len(shelf) for shelf in catalog.shelves.values()) == len(entries)
    for entry in entries:
        assert catalog.exact(entry.exact) is entry
        assert (catalog.vector(entry) is not None) is bool(entry.embedder)
