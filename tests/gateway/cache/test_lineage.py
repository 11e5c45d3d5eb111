"""Follow-up questions: answered only inside the conversation that they follow."""

from contextlib import aclosing
from typing import Any

import pytest

from epidote_gateway.answers import Facts, Job
from epidote_gateway.cache.cached_answers import CachedAnswers
from epidote_gateway.cache.fakes import CountingAnswers, make_job, say
from epidote_gateway.cache.lineage import Lineages

Turns = list[tuple[str, str]]
FRANCE = "tell me what the capital city of France is"
FRANCE_TOO = "tell me what the capital city is of France"
SPAIN = "name the largest river in Spain"
FOLLOW = "and how many people live there"


def policy(follow_ups: str) -> dict[str, Any]:
    return {
        "requests": {"followUps": follow_ups},
        "categories": [{"name": "default", "threshold": 0.6}],
    }


class Conversation:
    """A client that sends back all that was said."""

    def __init__(self, answers: CachedAnswers) -> None:
        self._answers = answers
        self.turns: Turns = []

    async def ask(self, text: str) -> tuple[str, str, Job]:
        job = make_job(text, turns=self.turns)
        facts = Facts()
        async with aclosing(self._answers.stream(job, facts)) as stream:
            answer = "".join([c.text async for item in stream for c in item])
        self.turns += [("user", text), ("assistant", answer)]
        assert facts.cache is not None
        return answer, facts.cache.header().decode(), job


@pytest.fixture
def make(make_cache: Any) -> Any:
    async def make(follow_ups: str) -> CachedAnswers:
        return CachedAnswers(CountingAnswers(), await make_cache(policy(follow_ups)))

    return make


async def test_a_follow_up_of_another_conversation_is_never_served(make: Any) -> None:
    answers = await make("SameLineage")
    france, spain = Conversation(answers), Conversation(answers)
    await france.ask(FRANCE)
    await france.ask(FOLLOW)
    await spain.ask(SPAIN)
    answer, header, job = await spain.ask(FOLLOW)
    assert header.startswith("miss; why=nothing-near")
    assert answer == say(job)


async def test_a_stand_alone_entry_never_answers_a_follow_up(make: Any) -> None:
    """MeanCache's code accepts entries without a parent for any question: its trap."""
    answers = await make("SameLineage")
    alone = Conversation(answers)
    stand_alone, _, _ = await alone.ask(FOLLOW)
    france = Conversation(answers)
    await france.ask(FRANCE)
    answer, header, _ = await france.ask(FOLLOW)
    assert header.startswith("miss")
    assert answer != stand_alone


async def test_a_follow_up_never_answers_a_stand_alone_question(make: Any) -> None:
    answers = await make("SameLineage")
    france = Conversation(answers)
    await france.ask(FRANCE)
    await france.ask(FOLLOW)
    _, header, _ = await Conversation(answers).ask(FOLLOW)
    assert header.startswith("miss")


async def test_conversations_answered_by_the_same_entries_share_their_follow_ups(
    make: Any,
) -> None:
    answers = await make("SameLineage")
    first, second = Conversation(answers), Conversation(answers)
    await first.ask(FRANCE)
    there, _, _ = await first.ask(FOLLOW)
    _, header, _ = await second.ask(FRANCE_TOO)
    assert "kind=semantic" in header
    again, header, _ = await second.ask(FOLLOW)
    assert header.startswith("hit")
    assert again == there
    third, _, _ = await first.ask("which of them is older")
    once_more, header, _ = await second.ask("which is older of them")
    assert header.startswith("hit")
    assert once_more == third


@pytest.mark.parametrize(("follow_ups", "expected"), [("SameTurns", "miss"), ("Off", "miss")])
async def test_without_lineages_the_earlier_turns_must_be_equal(
    make: Any, follow_ups: str, expected: str
) -> None:
    answers = await make(follow_ups)
    first, second = Conversation(answers), Conversation(answers)
    await first.ask(FRANCE)
    await first.ask(FOLLOW)
    await second.ask(FRANCE_TOO)
    assert (await second.ask(FOLLOW))[1].startswith(expected)


@pytest.mark.parametrize(("follow_ups", "expected"), [("SameTurns", "hit"), ("Off", "miss")])
async def test_a_paraphrased_follow_up_of_equal_turns(
    make: Any, follow_ups: str, expected: str
) -> None:
    answers = await make(follow_ups)
    first, second = Conversation(answers), Conversation(answers)
    for conversation in (first, second):
        await conversation.ask(FRANCE)
    await first.ask(FOLLOW)
    assert (await second.ask("and how many live there people"))[1].startswith(expected)


async def test_a_changed_answer_in_the_history_is_another_conversation(make: Any) -> None:
    answers = await make("SameLineage")
    first, second = Conversation(answers), Conversation(answers)
    for conversation in (first, second):
        await conversation.ask(FRANCE)
    second.turns[1] = ("assistant", "something that was never said")
    await first.ask(FOLLOW)
    assert (await second.ask(FOLLOW))[1].startswith("miss")


def test_the_oldest_lineage_is_forgotten_first() -> None:
    lineages = Lineages(capacity=2)
    for number in range(3):
        lineages.join(bytes([number]), b"root")
    assert [lineages.of(bytes([n])) for n in range(3)] == [b"\x00", b"root", b"root"]
    assert len(lineages) == 2
