"""This file is about the second check by the served model itself: does this answer fit as well?

One short greedy generation, for semantic hits only. It costs a prefill, saves a decode, and is as
good as the model; where there is a cross-encoder, that is a cheaper `protocols.SecondCheck`.
"""

import asyncio
import json
import uuid
from contextlib import aclosing

from epidote_core.generation import GenerateRequest
from epidote_core.sampling import SamplingParams
from epidote_gateway.answers import Answers, Facts, Job
from epidote_gateway.backend import PromptRenderer

MAX_ANSWER_CHARS = 2000  # what the answer is about shows at its beginning
DEADLINE_S = 5.0  # longer, and answering anew is as good
_TASK = """A saved answer may be reused only if it fully and correctly answers the new question.

Earlier question: {cached}
Saved answer: {answer}
New question: {asked}

Does the saved answer fully and correctly answer the new question? Reply with yes or no."""


class ModelCheck:
    """See `protocols.SecondCheck`. `answers` must be the fleet's own, not the cache's."""

    def __init__(self, answers: Answers, renderer: PromptRenderer) -> None:
        self._answers = answers
        self._renderer = renderer

    async def agrees(self, asked: str, cached: str, answer: str) -> bool:
        """Whether the model says yes and nothing else. TimeoutError: not in time."""
        # quoted, so that a question can't pass for a part of the task
        texts = {"asked": asked, "cached": cached, "answer": answer[:MAX_ANSWER_CHARS]}
        task = _TASK.format(**{name: json.dumps(text) for name, text in texts.items()})
        async with asyncio.timeout(DEADLINE_S):
            said = await self._generate(task)
        return said.strip().rstrip(".!").lower() == "yes"

    async def _generate(self, task: str) -> str:
        prompt = self._renderer.render_chat([{"role": "user", "content": task}], media=())
        request = GenerateRequest(
            request_id=f"cache-check-{uuid.uuid4().hex}",
            prompt_token_ids=tuple(prompt.token_ids),
            sampling=SamplingParams(max_tokens=4, temperature=0.0),
        )
        job = Job(model=self._renderer.model_name, request=request)
        async with aclosing(self._answers.stream(job, Facts())) as stream:
            return "".join([chunk.text async for item in stream for chunk in item])
