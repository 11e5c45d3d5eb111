"""The cache in the path of requests: what hits, what misses, who is asked how often."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from epidote_core.generation import FinishReason, TokenChunk
from epidote_gateway.answers import Facts, Job
from epidote_gateway.cache.cached_answers import CachedAnswers
from epidote_gateway.cache.controls import CacheControls
from epidote_gateway.cache.fakes import CountingAnswers, FakeClock, make_job, say
from epidote_gateway.cache.model_check import ModelCheck
from epidote_gateway.cache.policy import parse_policy
from epidote_gateway.cache.response_cache import ResponseCache
from epidote_gateway.cache.selection import Selection
from epidote_gateway.fakes import FakeRenderer

LOOSE = {"categories": [{"name": "default", "threshold": 0.6}]}
A, B = "how do I reset the password of my account", "how do I reset my account password"


async def ask(answers: CachedAnswers, job: Job) -> tuple[str, str]:
    """(text of choice 0, header)."""
    facts = Facts()
    async with aclosing(answers.stream(job, facts)) as stream:
        items = [chunk async for item in stream for chunk in item]
    assert facts.cache is not None
    text = "".join(chunk.text for chunk in items if chunk.index == 0)
    return text, facts.cache.header().decode()


@pytest.fixture
def fleet() -> CountingAnswers:
    return CountingAnswers()


@pytest.fixture
def make(make_cache: Callable[..., Any], fleet: CountingAnswers) -> Callable[..., Any]:
    async def make(
        spec: dict[str, Any] | None = None, **more: Any
    ) -> tuple[CachedAnswers, ResponseCache]:
        cache = await make_cache(spec or LOOSE, **more)
        return CachedAnswers(fleet, cache), cache

    return make


async def test_the_same_question_is_answered_once(make: Any, fleet: CountingAnswers) -> None:
    answers, _ = await make()
    first, header = await ask(answers, make_job(A))
    assert header == "miss; why=nothing-near; category=default"
    second, header = await ask(answers, make_job(A))
    assert first == second == say(make_job(A))
    assert header.startswith("hit; kind=exact; category=default; age=0; id=")
    assert len(fleet.jobs) == 1


async def test_a_paraphrase_gets_the_answer_and_is_told_how_near_it_was(
    make: Any, fleet: CountingAnswers
) -> None:
    answers, _ = await make()
    await ask(answers, make_job(A))
    text, header = await ask(answers, make_job(B))
    assert text == say(make_job(A))
    assert header.startswith("hit; kind=semantic; category=default; similarity=0.")
    assert len(fleet.jobs) == 1


async def test_a_guard_refuses_another_number_and_says_so(
    make: Any, fleet: CountingAnswers
) -> None:
    answers, cache = await make()
    await ask(answers, make_job("what did we sell in 2019"))
    text, header = await ask(answers, make_job("what did we sell in 2020"))
    assert text == say(make_job("what did we sell in 2020"))
    assert header.startswith("miss; why=numbers; category=default; similarity=0.")
    value = cache.state.metrics.refusals.labels("default", "numbers")._value.get()
    assert value == 1


async def test_a_refused_neighbour_does_not_hide_the_right_one(
    make: Any, fleet: CountingAnswers
) -> None:
    answers, _ = await make()
    await ask(answers, make_job("the sales we made in 2020"))
    await ask(answers, make_job("which sales we made in 2019"))
    text, header = await ask(answers, make_job("which sales we made in 2020"))
    assert header.startswith("hit; kind=semantic")
    assert text == say(make_job("the sales we made in 2020"))


@pytest.mark.parametrize(
    ("job", "why"),
    [
        (make_job(A, temperature=0.7), "temperature"),
        (make_job(A, fields={"tools": [{"type": "function"}]}), "tools"),
        (make_job(A, user="ann"), "personalized"),
        (make_job(A, tenant="shy"), "opted-out"),
        (make_job(A, controls=CacheControls(no_store=True)), "no-store"),
        (make_job("my salary " + A), "category-disabled"),
    ],
)
async def test_what_must_not_be_cached_passes_by(
    make: Any, fleet: CountingAnswers, job: Job, why: str
) -> None:
    private = {"name": "private", "enabled": False, "exemplars": ["salary"]}
    spec = {"categories": [private], "tenants": {"optedOut": ["shy"]}}
    answers, cache = await make(spec)
    for _ in range(2):
        text, header = await ask(answers, job)
        assert text == say(job)
        assert header.startswith(f"bypass; why={why}")
    assert len(fleet.jobs) == 2
    assert not len(cache.state.catalog)


async def test_no_cache_asks_the_fleet_and_keeps_the_newer_answer(
    make: Any, fleet: CountingAnswers, clock: FakeClock
) -> None:
    answers, cache = await make()
    await ask(answers, make_job(A))
    clock.pass_s(10)
    _, header = await ask(answers, make_job(A, controls=CacheControls(no_cache=True)))
    assert header.startswith("miss; why=no-cache")
    assert len(fleet.jobs) == 2
    assert len(cache.state.catalog) == 1
    _, header = await ask(answers, make_job(A, controls=CacheControls(max_age_s=5)))
    assert "age=0" in header


async def test_max_age_refuses_older_answers_only(make: Any, clock: FakeClock) -> None:
    answers, _ = await make()
    await ask(answers, make_job(A))
    clock.pass_s(30)
    young = make_job(A, controls=CacheControls(max_age_s=20))
    assert (await ask(answers, make_job(A)))[1].startswith("hit")
    assert (await ask(answers, young))[1].startswith("miss; why=max-age")


async def test_an_expired_answer_is_gone(
    make: Any, fleet: CountingAnswers, clock: FakeClock
) -> None:
    answers, _ = await make({"categories": [{"name": "default", "ttlSeconds": 60}]})
    await ask(answers, make_job(A))
    clock.pass_s(59)
    assert (await ask(answers, make_job(A)))[1].startswith("hit")
    clock.pass_s(1)
    assert (await ask(answers, make_job(A)))[1].startswith("miss")
    assert len(fleet.jobs) == 2


async def test_a_category_is_named_by_the_request_if_the_policy_knows_it(make: Any) -> None:
    spec = {"categories": [{"name": "faq", "ttlSeconds": 60}]}
    answers, _ = await make(spec)
    for given, got in (("faq", "faq"), ("nonsense", "default")):
        job = make_job(f"{A} {given}", controls=CacheControls(category=given))
        assert f"category={got}" in (await ask(answers, job))[1]
        assert (await ask(answers, job))[1].startswith("hit")


async def test_an_answer_cut_by_its_limit_is_kept_only_if_allowed_and_for_that_limit(
    make: Any, fleet: CountingAnswers
) -> None:
    fleet.finish = FinishReason.LENGTH
    answers, cache = await make()
    await ask(answers, make_job(A))
    assert not len(cache.state.catalog)
    await cache.apply(parse_policy({**LOOSE, "requests": {"truncated": True}}))
    await ask(answers, make_job(A))
    assert (await ask(answers, make_job(A)))[1].startswith("hit")
    assert (await ask(answers, make_job(A, max_tokens=50)))[1].startswith("miss; why=token-limit")


async def test_a_whole_answer_fits_any_limit_that_it_does_not_reach(make: Any) -> None:
    answers, _ = await make()
    text, _ = await ask(answers, make_job(A, max_tokens=100))
    assert (await ask(answers, make_job(A, max_tokens=len(text))))[1].startswith("hit")
    shorter = make_job(A, max_tokens=len(text) - 1)
    assert (await ask(answers, shorter))[1].startswith("miss; why=token-limit")


async def test_equal_questions_at_the_same_time_share_one_answer(
    make: Any, fleet: CountingAnswers
) -> None:
    answers, _ = await make()
    fleet.delay_s = 0.001
    told = await asyncio.gather(*(ask(answers, make_job(A)) for _ in range(20)))
    assert {text for text, _ in told} == {say(make_job(A))}
    assert len(fleet.jobs) == 1
    assert sum("why=collapsed" in header for _, header in told) == 19


async def test_a_listener_survives_the_one_who_asked_first(
    make: Any, fleet: CountingAnswers
) -> None:
    answers, _ = await make()
    fleet.delay_s = 0.005
    first = asyncio.create_task(ask(answers, make_job(A)))
    while not fleet.jobs:
        await asyncio.sleep(0)
    second = asyncio.create_task(ask(answers, make_job(A)))
    [flight] = answers._flights._by_key.values()
    async with asyncio.timeout(60):
        while flight.num_listeners < 2:
            await asyncio.sleep(0)
    first.cancel()
    assert (await second)[0] == say(make_job(A))
    assert len(fleet.jobs) == 1
    assert fleet.num_cancelled == 0


async def test_when_every_client_has_left_the_fleet_is_told(
    make: Any, fleet: CountingAnswers
) -> None:
    answers, cache = await make()
    fleet.delay_s = 0.005
    asking = [asyncio.create_task(ask(answers, make_job(A))) for _ in range(3)]
    while not fleet.num_open:
        await asyncio.sleep(0.001)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    assert (fleet.num_open, fleet.num_cancelled) == (0, 1)
    assert not len(cache.state.catalog)


async def test_a_failed_answer_fails_everybody_and_is_not_kept(
    make: Any, fleet: CountingAnswers
) -> None:
    answers, cache = await make()
    fleet.fail_after, fleet.delay_s = 3, 0.001
    told = await asyncio.gather(
        *(ask(answers, make_job(A)) for _ in range(5)), return_exceptions=True
    )
    assert all(isinstance(error, RuntimeError) for error in told)
    assert len(fleet.jobs) == 1
    assert not len(cache.state.catalog)
    fleet.fail_after = None
    assert (await ask(answers, make_job(A)))[0] == say(make_job(A))


async def test_an_answer_begun_before_an_invalidation_is_not_kept_after_it(
    make: Any, fleet: CountingAnswers
) -> None:
    answers, cache = await make()
    fleet.delay_s = 0.005
    asking = asyncio.create_task(ask(answers, make_job(A)))
    while not fleet.num_open:
        await asyncio.sleep(0.001)
    await cache.invalidate(Selection(model="m"))
    await asking
    assert not len(cache.state.catalog)


async def test_a_report_evicts_the_entry_and_tightens_its_category(make: Any) -> None:
    answers, cache = await make()
    await ask(answers, make_job(A))
    _, header = await ask(answers, make_job(B))
    entry_id = header.rpartition("id=")[2]
    assert await cache.report_wrong(entry_id, "somebody else") is None
    assert await cache.report_wrong(entry_id, "") == pytest.approx(0.61)
    assert await cache.report_wrong(entry_id, "") is None
    assert (await ask(answers, make_job(B)))[1].startswith("miss")


async def test_a_failing_embedder_leaves_exact_hits(make: Any, fleet: CountingAnswers) -> None:
    answers, cache = await make()
    cache.state.judges.embedder.fails = True
    assert "why=embedder-failed" in (await ask(answers, make_job(A)))[1]
    assert (await ask(answers, make_job(A)))[1].startswith("hit; kind=exact")
    assert (await ask(answers, make_job(B)))[1].startswith("miss")


async def test_a_question_longer_than_the_model_reads_is_compared_exactly(make: Any) -> None:
    answers, _ = await make()
    long = " ".join(["word"] * 100)
    await ask(answers, make_job(long))
    assert (await ask(answers, make_job(long)))[1].startswith("hit; kind=exact")
    assert (await ask(answers, make_job(long + " and")))[1].startswith("miss; why=nothing-near")


async def test_several_choices_come_back_as_they_were(make: Any) -> None:
    answers, _ = await make()
    facts = Facts()
    job = make_job(A, num_choices=3)
    await ask(answers, job)
    chunks = [c async for item in answers.stream(job, facts) for c in item]
    assert facts.cache is not None
    assert facts.cache.header().startswith(b"hit")
    assert {c.index for c in chunks} == {0, 1, 2}
    assert sum(c.finish_reason is FinishReason.STOP for c in chunks) == 3
    assert not any(c.timings for c in chunks)
    assert (await ask(answers, make_job(A, num_choices=2)))[1].startswith("miss")


async def test_a_streamed_hit_is_replayed_at_the_categorys_speed(make: Any) -> None:
    spec = {"categories": [{"name": "default", "replayTokensPerSecond": 200}]}
    answers, _ = await make(spec)
    text, _ = await ask(answers, make_job(A))
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    await ask(answers, make_job(A, streamed=True))
    assert loop.time() - begun_s >= (len(text) - 1) / 200
    items = [item async for item in answers.stream(make_job(A), Facts())]
    assert len(items) == 1


class Judge:
    """A fleet that answers the check, and remembers what it was shown."""

    def __init__(self, verdict: str) -> None:
        self.verdict = verdict
        self.prompts: list[str] = []

    async def stream(self, job: Job, facts: Facts) -> Any:
        self.prompts.append(bytes(i for i in job.request.prompt_token_ids if i < 256).decode())
        for letter in self.verdict:
            yield [TokenChunk(index=0, token_ids=(1,), text=letter)]
        yield [TokenChunk(index=0, token_ids=(), text="", finish_reason=FinishReason.STOP)]


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [(" Yes.", "hit; kind=semantic"), ("no", "miss; why=second-check"), ("", "miss; why=second")],
)
async def test_the_second_check_has_the_last_word_on_semantic_hits(
    make: Any, fleet: CountingAnswers, verdict: str, expected: str
) -> None:
    judge = Judge(verdict)
    check = ModelCheck(judge, FakeRenderer())
    answers, _ = await make({**LOOSE, "guards": {"secondCheck": True}}, second_check=check)
    text, _ = await ask(answers, make_job(A))
    assert (await ask(answers, make_job(A)))[1].startswith("hit; kind=exact")
    assert not judge.prompts
    assert (await ask(answers, make_job(B)))[1].startswith(expected)
    [prompt] = judge.prompts
    assert all(part in prompt for part in (A, B, text))


async def test_a_second_check_that_fails_or_is_missing_says_no(make: Any) -> None:
    class Broken:
        async def agrees(self, asked: str, cached: str, answer: str) -> bool:
            raise RuntimeError("out of order")

    for check in (Broken(), None):
        spec = {**LOOSE, "epoch": repr(check is None), "guards": {"secondCheck": True}}
        answers, _ = await make(spec, second_check=check)
        await ask(answers, make_job(A))
        assert (await ask(answers, make_job(B)))[1].startswith("miss; why=second-check")
