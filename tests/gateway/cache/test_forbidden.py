"""This file is about a disabled category: nothing of it is served or kept, on whatever way."""

from dataclasses import replace
from typing import Any

import pytest

from epidote_gateway.answers import Facts
from epidote_gateway.cache.cached_answers import CachedAnswers
from epidote_gateway.cache.controls import CacheControls
from epidote_gateway.cache.fakes import CountingAnswers, WordEmbedder, make_job
from epidote_gateway.cache.forbidden import Verdicts
from epidote_gateway.cache.policy import parse_policy

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
    job = make_job("my password", turns=(("user", "hi"), ("assistant", "hello")))
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
    assert sorted(entry.category for entry in cache.state.catalog) == ["faq", "health"]
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
    assert await verdicts.names(texts, judges) == ["faq", "health", "default"]
    embedder: WordEmbedder = judges.embedder
    before = embedder.num_embedded
    assert await verdicts.names(texts[1:], judges) == ["health", "default"]
    assert embedder.num_embedded == before
    await verdicts.names(texts[:1], judges)
    assert embedder.num_embedded == before + 1
