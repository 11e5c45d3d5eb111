"""This file is about a pretend sentence model, made of words, and a fleet that counts its work."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np

from epidote_core.generation import (
    Choice,
    FinishReason,
    GenerateRequest,
    MediaKind,
    MediaSpan,
    StageTiming,
    TokenChunk,
)
from epidote_core.sampling import SamplingParams
from epidote_gateway.answers import Facts, Job
from epidote_gateway.cache.controls import CacheControls, CacheFacts
from epidote_gateway.cache.policy import DEFAULT_CATEGORY, CachePolicy, CategorySpec, Guard
from epidote_gateway.cache.protocols import (
    Category,
    Classifier,
    Embedder,
    Guards,
    Reason,
    Refusal,
    Vector,
    Vectors,
)

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+")


@dataclass(kw_only=True)
class FakeClock:
    """Monotonic seconds when called, and a unix time that moves along."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def unix(self) -> float:
        return 1.7e9 + self.now_s

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass(kw_only=True)
class WordEmbedder:
    """A text is the sum of its words' random directions: the more words in common, the nearer."""

    name: str = "words"
    dimensions: int = 64
    max_words: int = 64
    delay_s: float = 0.0
    fails: bool = False
    num_embedded: int = 0
    is_closed: bool = False

    async def embed(self, texts: Sequence[str]) -> Vectors:
        await asyncio.sleep(self.delay_s)
        if self.fails:
            raise RuntimeError("the pretend model fails")
        self.num_embedded += len(texts)
        return np.stack([self._vector(text) for text in texts])

    def is_whole(self, text: str) -> bool:
        return len(_WORD.findall(text)) <= self.max_words

    async def aclose(self) -> None:
        self.is_closed = True

    def _vector(self, text: str) -> Vector:
        total = np.full(self.dimensions, 1e-6, np.float32)
        for word in _WORD.findall(text.lower()):
            seed = int.from_bytes(blake2b(f"{self.name} {word}".encode(), digest_size=8).digest())
            total += np.random.default_rng(seed).standard_normal(self.dimensions, np.float32)
        return total / np.linalg.norm(total)


@dataclass(kw_only=True)
class WordClassifier:
    """The first category one of whose exemplars occurs in the text."""

    words: Mapping[str, str]

    def classify(self, vector: Vector, text: str) -> Category:
        for word, name in self.words.items():
            if word in text.lower():
                return Category(name=name, similarity=1.0)
        return Category(name=DEFAULT_CATEGORY)


@dataclass(kw_only=True)
class NumberGuards:
    """Refuses other numbers, nothing else."""

    enabled: bool = True

    def check(self, asked: str, cached: str) -> Refusal | None:
        if not self.enabled or _NUMBER.findall(asked) == _NUMBER.findall(cached):
            return None
        return Refusal(reason=Reason.NUMBERS, detail=f"{asked} / {cached}")


@dataclass(kw_only=True)
class WordMeaning:
    """Exemplars are single words; `embedder.model` names the embedder."""

    embedders: dict[str, WordEmbedder] = field(default_factory=dict)

    async def embedder(self, policy: CachePolicy) -> Embedder:
        model = policy.embedder.model
        return self.embedders.setdefault(model, WordEmbedder(name=model))

    async def classifier(self, policy: CachePolicy, embedder: Embedder) -> Classifier:
        return WordClassifier(
            words={word: c.name for c in policy.categories for word in c.exemplars}
        )

    def guards(self, policy: CachePolicy, category: CategorySpec) -> Guards:
        is_on = policy.guards.enabled and policy.guards.numbers and Guard.NUMBERS in category.guards
        return NumberGuards(enabled=is_on)


def make_job(
    text: str = "hi",
    *,
    turns: Sequence[tuple[str, str]] = (),
    media: Sequence[str] = (),
    controls: CacheControls | None = None,
    user: str = "",
    streamed: bool = False,
    fields: Mapping[str, Any] | None = None,
    model: str = "m",
    tenant: str = "",
    num_choices: int = 1,
    **sampling: Any,
) -> Job:
    """A chat of `turns` (role, text), then `text` with `media`; greedy, at most 100 tokens."""
    content: Any = text
    if media:
        content = [{"type": "text", "text": text}, *({"type": "image"} for _ in media)]
    messages = [{"role": role, "content": said} for role, said in turns]
    spans = [
        MediaSpan(key=key, kind=MediaKind.IMAGE, offset=n, num_tokens=1, grid_thw=(1, 1, 1))
        for n, key in enumerate(media)
    ]
    return Job(
        model=model,
        request=GenerateRequest(
            request_id="r",
            prompt_token_ids=tuple(text.encode()) or (0,),
            sampling=SamplingParams(**{"max_tokens": 100, "temperature": 0.0, **sampling}),
            media=tuple(spans),
            choices=tuple(Choice(index=index) for index in range(num_choices)),
            cache_salt=f"{tenant}\n" if tenant else "",
        ),
        tenant=tenant,
        messages=(*messages, {"role": "user", "content": content}),
        cache=CacheFacts(
            controls=controls or CacheControls(),
            user=user,
            streamed=streamed,
            fields=tuple((fields or {}).items()),
        ),
    )


def say(job: Job) -> str:
    """What the pretend fleet answers: different for whatever is different."""
    request = job.request
    media = [span.key for span in request.media]
    told = repr((job.model, job.tenant, job.messages, media, dict(job.cache.fields)))
    return f"<{blake2b(told.encode(), digest_size=6).hexdigest()}>"


@dataclass(kw_only=True)
class CountingAnswers:
    """An `Answers` that says `say(job)`, a character a token. Fields may be changed any time."""

    delay_s: float = 0.0
    finish: FinishReason = FinishReason.STOP
    fail_after: int | None = None  # items
    error: Exception = field(default_factory=lambda: RuntimeError("upstream failed"))
    on_item: Callable[[], None] = lambda: None
    jobs: list[Job] = field(default_factory=list)
    num_open: int = 0
    num_cancelled: int = 0

    async def stream(self, job: Job, facts: Facts) -> AsyncGenerator[list[TokenChunk], None]:
        self.jobs.append(job)
        self.num_open += 1
        finished = False
        try:
            text = say(job)
            for place, letter in enumerate(text):
                await asyncio.sleep(self.delay_s)
                if self.fail_after is not None and place >= self.fail_after:
                    raise self.error
                self.on_item()
                is_last = place == len(text) - 1
                timing = StageTiming(stage="decode", worker_id="w", busy_s=0.001)
                yield [
                    TokenChunk(
                        index=choice.index,
                        token_ids=(ord(letter),),
                        text=letter,
                        finish_reason=self.finish if is_last else None,
                        timings=(timing,) if is_last else (),
                    )
                    for choice in job.request.choices
                ]
            finished = True
        finally:
            self.num_open -= 1
            self.num_cancelled += not finished
