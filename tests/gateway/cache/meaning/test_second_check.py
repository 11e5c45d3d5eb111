"""This file is about the model's own opinion on a neighbour, asked through the gateway."""

import asyncio
from collections.abc import AsyncGenerator
from random import Random
from time import monotonic

import pytest

from epidote_core.generation import FinishReason, TokenChunk
from epidote_core.roles import Role
from epidote_gateway.answers import Facts, Job
from epidote_gateway.cache.meaning.second_check import INSTRUCTIONS, MAX_TOKENS, ModelCheck
from epidote_gateway.fakes import FakeBackend, FakeRenderer
from epidote_gateway.generation import Generation
from epidote_gateway.settings import GatewaySettings


class Says:
    """Answers every job with the same words, in pieces."""

    def __init__(self, *words: str, wait: bool = False) -> None:
        self.words = words
        self.wait = wait
        self.jobs: list[Job] = []

    async def stream(self, job: Job, facts: Facts) -> AsyncGenerator[list[TokenChunk], None]:
        self.jobs.append(job)
        if self.wait:
            await asyncio.Event().wait()
        for number, word in enumerate(self.words, start=1):
            reason = FinishReason.STOP if number == len(self.words) else None
            yield [TokenChunk(index=0, token_ids=(1,), text=word, finish_reason=reason)]


@pytest.mark.parametrize(
    ("words", "agrees"),
    [
        (("YES",), True),
        ((" Y", "es", "."), True),
        (("NO",), False),
        (("Yes, but",), False),
        (("",), False),
        (("NOT YES",), False),
    ],
)
async def test_only_a_plain_yes_agrees(words: tuple[str, ...], agrees: bool) -> None:
    says = Says(*words)
    check = ModelCheck(says, FakeRenderer())
    assert await check.agrees("who won in 2020", "who won in 2019", "Ann") is agrees
    assert says.jobs[0].request.sampling.temperature == 0.0
    assert says.jobs[0].request.sampling.max_tokens == MAX_TOKENS


async def test_prompt_holds_both_questions_and_the_answer_as_data() -> None:
    says, renderer = Says("NO"), FakeRenderer()
    await ModelCheck(says, renderer).agrees('a "quoted"\nquestion', "another", "an answer")
    prompt = renderer.detokenize(says.jobs[0].request.prompt_token_ids)
    assert INSTRUCTIONS in prompt
    assert r'"a \"quoted\"\nquestion"' in prompt
    assert prompt.index('"another"') < prompt.index('"an answer"') < prompt.index("quoted")


async def test_a_model_that_does_not_answer_in_time_raises() -> None:
    check = ModelCheck(Says(wait=True), FakeRenderer(), deadline_s=0.01)
    with pytest.raises(TimeoutError):
        await check.agrees("a", "b", "c")


async def test_it_asks_through_the_gateways_own_generation() -> None:
    backend = FakeBackend.of({Role.PREFILL: 1, Role.DECODE: 1})
    generation = Generation(backend, GatewaySettings(), rng=Random(0), clock=monotonic)
    assert await ModelCheck(generation, FakeRenderer()).agrees("a", "b", "c") is False
    assert len(backend.requests) == 1
    assert backend.num_open == 0
