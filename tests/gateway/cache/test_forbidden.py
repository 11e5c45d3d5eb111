"""This file is about a disabled category: nothing of it is served or kept, on whatever way."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from epidote_gateway.answers import Facts
from epidote_gateway.cache.cached_answers import CachedAnswers
from epidote_gateway.cache.controls import CacheControls
from epidote_gateway.cache.fakes import CountingAnswers, WordEmbedder, make_job
from epidote_gateway.cache.forbidden import Verdicts
from epidote_gateway.cache.policy import parse_policy
from epidote_gateway.cache.sqlite_store import SqliteStore

FAQ = {"name": "faq", "threshold": 0.5, "exemplars": ["password"]}
HEALTH = {"name": "health", "enabled": False, "exemplars": ["pills"]}
SPEC: dict[str, Any] = {"categories": [FAQ, HEALTH]}
TURNS = (("user", "which pills do I take"), ("assistant", "these"))


async def fate(answers: CachedAnswers, job: Any) -> str:
    facts = Facts()
    async for _ in answers.stream(job, facts):
        pass
    assert facts.cache is not None
    return facts.cache.header().decode().partition("; id=")[0]


@pytest.fixture
async def both(make_cache: Any) -> Any:
    cache = await make_cache(SPEC)
    return CachedAnswers(CountingAnswers(), cache), cache


@pytest.mark.parametrize(
    ("job", "why"),
    [
        (make_job("more pills"), "category-disabled; category=health"),
        (make_job("and now?", turns=TURNS), "category-disabled; category=health"),
        (
            make_job("more pills", controls=CacheControls(category="faq")),
            "category-disabled; category=health",
        ),
        (make_job("new", controls=CacheControls(category="health")), "category-disabled"),
        (make_job("pills " + "so " * 100), "category-unknown"),
        (make_job("my password", turns=(("user", "so " * 100),)), "category-unknown"),
        (make_job("", media=["a"]), "category-unknown"),
    ],
)
async def test_what_is_or_may_be_of_it_is_neither_looked_up_nor_kept(
    both: Any, job: Any, why: str
) -> None:
    answers, cache = both
    for _ in range(2):
        assert (await fate(answers, job)).startswith(f"bypass; why={why}")
    assert not len(cache.state.catalog)


async def test_raw_prompts_are_kept_out_since_nobody_can_tell_their_category(both: Any) -> None:
    answers, cache = both
    assert await fate(answers, replace(make_job("x"), messages=None)) == (
        "bypass; why=category-unknown"
    )
    await cache.apply(parse_policy({"categories": [FAQ]}))
    assert (await fate(answers, replace(make_job("x"), messages=None))).startswith("miss")


async def test_others_are_cached_as_ever_and_judged_once(both: Any) -> None:
    answers, cache = both
    job = make_job("my password", turns=(("user", "password"), ("assistant", "hello")))
    assert (await fate(answers, job)).startswith("miss; why=nothing-near; category=faq")
    embedded = cache.state.judges.embedder.num_embedded
    assert (await fate(answers, job)).startswith("hit; kind=exact")
    assert cache.state.judges.embedder.num_embedded == embedded


async def test_a_failing_model_keeps_everything_out(both: Any) -> None:
    answers, cache = both
    cache.state.judges.embedder.fails = True
    assert await fate(answers, make_job("my password")) == "bypass; why=category-unknown"
    assert not len(cache.state.catalog)


async def test_disabling_stops_what_was_kept_under_a_named_category(make_cache: Any) -> None:
    cache = await make_cache({"categories": [FAQ, {**HEALTH, "enabled": True}]})
    answers = CachedAnswers(CountingAnswers(), cache)
    await fate(answers, make_job("more pills", controls=CacheControls(category="faq")))
    await fate(answers, make_job("reset pass word", controls=CacheControls(category="faq")))
    await cache.apply(parse_policy(SPEC))
    assert [entry.category for entry in cache.state.catalog] == ["faq"]
    near = make_job("many more", controls=CacheControls(category="faq"))
    assert (await fate(answers, near)).startswith("miss")
    assert (await fate(answers, make_job("more pills"))).startswith("bypass")


async def test_an_answer_under_way_when_its_category_is_disabled_is_not_kept(
    make_cache: Any,
) -> None:
    cache = await make_cache({"categories": [FAQ]})
    fleet = CountingAnswers()
    stream = CachedAnswers(fleet, cache).stream(make_job("more pills"), Facts())
    await anext(stream)
    await cache.apply(parse_policy(SPEC))
    async for _ in stream:
        pass
    assert not len(cache.state.catalog)


async def test_verdicts_are_bounded_and_begin_anew_with_other_judges(make_cache: Any) -> None:
    cache = await make_cache(SPEC)
    judges, verdicts = cache.state.judges, Verdicts(capacity=2)
    texts = ["my password", "my pills", "nothing"]
    assert [c.name for c in await verdicts.of(texts, judges)] == ["faq", "health", "default"]
    embedder: WordEmbedder = judges.embedder
    before = embedder.num_embedded
    assert [c.name for c in await verdicts.of(texts[1:], judges)] == ["health", "default"]
    assert embedder.num_embedded == before
    await verdicts.of(texts[:1], judges)
    assert embedder.num_embedded == before + 1


PRICES = {"name": "prices", "volatile": True, "ttlSeconds": 2, "exemplars": ["price"]}
PLAIN = {"name": "default", "threshold": 0.9}
BY_NAME = CacheControls(category="faq")


@pytest.mark.parametrize(
    ("categories", "job", "why"),
    [
        ([FAQ, HEALTH], make_job("what now"), "bypass; why=category-unknown"),
        ([FAQ, PRICES], make_job("what now"), "bypass; why=category-unknown"),
        ([FAQ, {**HEALTH, "exemplars": []}], make_job("hm"), "bypass; why=category-unknown"),
        ([FAQ], make_job("what now"), "miss"),
        ([FAQ, HEALTH], make_job("what now", controls=BY_NAME), "miss"),
        ([FAQ, HEALTH], make_job("my password", turns=(("user", "so"),)), "bypass; why=category-u"),
        ([FAQ, PRICES], make_job("my password", turns=(("user", "so"),)), "miss"),
        ([{**PLAIN, "exemplars": ["what"]}, HEALTH], make_job("what now"), "miss"),
        (
            [FAQ, {**HEALTH, "exemplars": ["pills", "what do I do with the pills"]}],
            make_job("wie ist mein password und was kann ich tun"),
            "bypass; why=category-unknown",
        ),
    ],
)
async def test_a_question_that_may_be_of_a_sensitive_category_is_not_cached(
    make_cache: Any, categories: Any, job: Any, why: str
) -> None:
    cache = await make_cache({"categories": categories})
    assert (await fate(CachedAnswers(CountingAnswers(), cache), job)).startswith(why)
    assert len(cache.state.catalog) == why.startswith("miss")


async def test_the_owner_may_have_doubtful_questions_cached_in_default(make_cache: Any) -> None:
    spec = {"categories": [FAQ, HEALTH, PRICES], "classifier": {"doubtful": "Default"}}
    answers = CachedAnswers(CountingAnswers(), await make_cache(spec))
    assert (await fate(answers, make_job("what now"))).endswith("category=default")
    assert (await fate(answers, make_job("my pills"))).startswith("bypass")


async def test_a_named_category_makes_no_volatile_answer_live_longer(
    make_cache: Any, clock: Any
) -> None:
    cache = await make_cache({"categories": [FAQ, PRICES]})
    answers = CachedAnswers(CountingAnswers(), cache)
    question = "what is the price of it"
    named = make_job(question, controls=BY_NAME)
    assert (await fate(answers, named)).startswith("miss; why=nothing-near; category=faq")
    clock.pass_s(1.5)
    assert (await fate(answers, make_job(question))).startswith("hit; kind=exact")
    assert (await fate(answers, named)).startswith("hit; kind=exact")
    clock.pass_s(1.5)
    near = make_job("what is the price of it now", controls=BY_NAME)
    assert (await fate(answers, near)).startswith("miss")
    assert (await fate(answers, make_job(question))).startswith("miss")


async def test_an_answer_of_another_category_is_too_old_for_a_volatile_question(
    make_cache: Any, clock: Any
) -> None:
    cache = await make_cache({"categories": [FAQ, PRICES]})
    answers = CachedAnswers(CountingAnswers(), cache)
    await fate(answers, make_job("what is the password of it"))
    clock.pass_s(3)
    asked = make_job("what is the price of it", controls=BY_NAME)
    assert (await fate(answers, asked)).startswith("miss")


async def test_what_was_kept_before_its_category_was_disabled_leaves_the_store(
    make_cache: Any, tmp_path: Any, clock: Any
) -> None:
    cache = await make_cache({"categories": [FAQ, {**HEALTH, "enabled": True}]})
    answers = CachedAnswers(CountingAnswers(), cache)
    await fate(answers, make_job("more pills"))
    await fate(answers, make_job("and my password", turns=TURNS))
    await fate(answers, make_job("my password"))
    await cache.flush_writes()
    before = {entry.text: entry.entry_id for entry in cache.state.catalog}
    await cache.apply(parse_policy(SPEC))
    await cache.flush_writes()
    store = SqliteStore(tmp_path / "answers.sqlite3", unix_time=clock.unix)
    kept = [text for text, entry_id in before.items() if await store.body(entry_id)]
    await store.aclose()
    assert kept == ["my password"]


async def test_a_gateway_that_starts_with_a_disabled_category_clears_the_store_of_it(
    make_cache: Any, tmp_path: Any, clock: Any
) -> None:
    cache = await make_cache({"categories": [FAQ]})
    answers = CachedAnswers(CountingAnswers(), cache)
    await fate(answers, make_job("more pills"))
    await fate(answers, make_job("and my password", turns=TURNS))
    await cache.aclose()
    after = await make_cache(SPEC)
    async with asyncio.timeout(60):
        while len(after.state.catalog):
            await asyncio.sleep(0.05)
    await after.flush_writes()
    assert not [c for c in (await after.state.keeper.changes("", 10))[0] if not c.removed]
