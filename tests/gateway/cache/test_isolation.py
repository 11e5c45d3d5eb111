"""Laws: whatever differs besides the last question's wording, nothing is ever served across it."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epidote_gateway.answers import Facts, Job
from epidote_gateway.cache.cached_answers import CachedAnswers
from epidote_gateway.cache.fakes import CountingAnswers, WordMeaning, make_job, say
from epidote_gateway.cache.fingerprint import Asked, fingerprint
from epidote_gateway.cache.lineage import Lineages
from epidote_gateway.cache.policy import parse_policy
from epidote_gateway.cache.response_cache import Collaborators, ResponseCache
from epidote_gateway.cache.sqlite_store import SqliteStore

# Anything goes by meaning, and no guard objects: only the context parts one request from another.
RECKLESS = {
    "guards": {"enabled": False},
    "requests": {"tools": True, "personalized": "PerUser", "maxTemperature": 2.0},
    "categories": [{"name": "default", "threshold": -1.0}],
}
POLICY = parse_policy(RECKLESS)
words = st.sampled_from(["red", "car", "which", "of", "them", ""])
texts = st.lists(words, min_size=1, max_size=3).map(" ".join)
turns = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), texts), max_size=2)
contexts = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["m", "n"]),
        "tenant": st.sampled_from(["", "a", "b"]),
        "user": st.sampled_from(["", "ann", "bob"]),
        "system": st.sampled_from(["", "be brief", "be kind"]),
        "turns": turns.map(tuple),
        "media": st.lists(st.sampled_from(["k1", "k2"]), max_size=2).map(tuple),
        "tools": st.sampled_from([(), ("f",), ("g",)]),
        "format": st.sampled_from(["", "json"]),
        "temperature": st.sampled_from([0.0, 0.5]),
        "top_p": st.sampled_from([0.5, 1.0]),
        "stop": st.sampled_from([(), ("x",)]),
        "num_choices": st.sampled_from([1, 2]),
    }
)


def job_of(context: dict[str, Any], text: str) -> Job:
    system = [("system", context["system"])] if context["system"] else []
    fields: dict[str, Any] = {}
    if context["tools"]:
        fields["tools"] = [{"name": name} for name in context["tools"]]
    if context["format"]:
        fields["response_format"] = {"type": context["format"]}
    return make_job(
        text or "?",
        turns=[*system, *context["turns"]],
        media=context["media"],
        model=context["model"],
        tenant=context["tenant"],
        user=context["user"],
        fields=fields,
        num_choices=context["num_choices"],
        temperature=context["temperature"],
        top_p=context["top_p"],
        stop=context["stop"],
    )


def deciding(context: dict[str, Any]) -> dict[str, Any]:
    """What decides an answer; top_p has no effect on a greedy one."""
    greedy = context["temperature"] == 0.0
    return {**context, "top_p": 1.0 if greedy else context["top_p"]}


@given(contexts, contexts, texts, texts)
def test_two_requests_share_a_context_only_if_all_but_the_question_is_equal(
    one: dict[str, Any], other: dict[str, Any], text: str, other_text: str
) -> None:
    lineages = Lineages()
    first = fingerprint(job_of(one, text), POLICY, lineages)
    second = fingerprint(job_of(other, other_text), POLICY, lineages)
    assert isinstance(first, Asked)
    assert isinstance(second, Asked)
    same = deciding(one) == deciding(other)
    assert (first.context == second.context) is same
    equal = same and (text or "?") == (other_text or "?")
    assert (first.exact == second.exact) is equal


@given(st.lists(st.tuples(contexts, texts), min_size=2, max_size=12), st.integers(0, 1000))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_answer_ever_crosses_a_context(
    asked: list[tuple[dict[str, Any], str]], seed: int
) -> None:
    """Ask all, twice, in any order: each answer was computed for an equal context."""

    async def play() -> None:
        with TemporaryDirectory() as folder:
            store = SqliteStore(Path(folder) / "a.sqlite3")
            cache = ResponseCache(POLICY, Collaborators(meaning=WordMeaning(), store=store))
            await cache.loaded()
            fleet = CountingAnswers()
            answers = CachedAnswers(fleet, cache)
            order = asked * 2
            Random(seed).shuffle(order)
            try:
                for context, text in order:
                    job = job_of(context, text)
                    async with aclosing(answers.stream(job, Facts())) as stream:
                        told = [c.text async for item in stream for c in item if not c.index]
                    allowed = {
                        say(job_of(c, t)) for c, t in asked if deciding(c) == deciding(context)
                    }
                    assert "".join(told) in allowed
            finally:
                await cache.aclose()

    asyncio.run(play())


def test_without_isolation_tenants_share_but_their_own_salts_still_part_them() -> None:
    shared = parse_policy({"tenants": {"isolated": False}})
    a, b = make_job("x", tenant="a"), make_job("x", tenant="b")

    def exact(job: Job) -> bytes:
        found = fingerprint(job, shared, Lineages())
        assert isinstance(found, Asked)
        return found.exact

    assert exact(a) == exact(b)


def test_another_revision_epoch_or_weights_share_nothing() -> None:
    found = set()
    for policy, revision in (
        ({}, ""),
        ({"epoch": "2"}, ""),
        ({"modelRevision": "2"}, ""),
        ({}, "2"),
    ):
        asked = fingerprint(make_job("x"), parse_policy(policy), Lineages(), revision=revision)
        assert isinstance(asked, Asked)
        found |= {asked.exact, asked.context}
    assert len(found) == 8


def test_pictures_with_captions_of_their_own_are_never_compared_by_meaning() -> None:
    """Whose caption is whose is in the order of the parts, which no sentence model sees."""
    job = make_job("Who is taller?", media=("a", "b"))
    *earlier, last = job.messages or ()
    pictures = [part for part in last["content"] if part["type"] != "text"]

    def captioned(one: str, other: str) -> Asked:
        texts = [{"type": "text", "text": said} for said in (one, other, "Who is taller?")]
        content = [texts[0], pictures[0], texts[1], pictures[1], texts[2]]
        messages = (*earlier, {**last, "content": content})
        found = fingerprint(replace(job, messages=messages), POLICY, Lineages())
        assert isinstance(found, Asked)
        return found

    first, second = captioned("Tom:", "Anna:"), captioned("Anna:", "Tom:")
    assert (first.text, second.text) == ("", "")
    assert first.exact != second.exact
