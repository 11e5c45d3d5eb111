"""This file is about the one seam behind every endpoint: a job goes in, chunks of tokens come out.

`generation.Generation` answers from the fleet. A response cache is another `Answers` that holds one
(it finds what it needs for its key in the `Job`); `app.create_app` is where they are stacked.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from epidote_core.generation import GenerateRequest, MediaPixels, Route, TokenChunk
from epidote_gateway.cache.controls import NO_FACTS, CacheFacts


@dataclass(frozen=True, kw_only=True)
class Job:
    """One prompt to answer, with all that decides the answer.

    `messages` is the conversation as the client sent it (None for raw prompts), with each
    image part's place taken by the key in `request.media`'s order.
    """

    model: str
    request: GenerateRequest
    pixels: tuple[MediaPixels, ...] = field(default=(), repr=False)
    tenant: str = ""
    messages: tuple[Mapping[str, Any], ...] | None = field(default=None, repr=False)
    cache: CacheFacts = NO_FACTS

    @property
    def modality(self) -> str:
        return "image" if self.pixels else "text"

    @property
    def num_bytes(self) -> int:
        """Held while it is answered; a token id is a number of 8 bytes at most."""
        return sum(len(pixels.data) for pixels in self.pixels) + 8 * len(
            self.request.prompt_token_ids
        )


CACHE_HEADER = b"x-epidote-cache"


class CacheOutcome(Protocol):
    """What the response cache made of a job."""

    def header(self) -> bytes:
        """For the client."""
        ...


@dataclass(kw_only=True)
class Facts:
    """What became of a job, filled while it runs."""

    routes: list[Route] = field(default_factory=list)  # more than one: it was resumed
    cache: CacheOutcome | None = None  # None: there is no response cache

    @property
    def num_resumes(self) -> int:
        return max(0, len(self.routes) - 1)


class Answers(Protocol):
    """Whoever answers jobs."""

    def stream(self, job: Job, facts: Facts) -> AsyncGenerator[list[TokenChunk], None]:
        """Non-empty lists of chunks until every choice has its `finish_reason`.

        Raises `ApiError`, also after some chunks. Closing it cancels the job everywhere.
        """
        ...
