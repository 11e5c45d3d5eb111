"""This file is about the seams of the cache: what its pieces promise each other.

text ──Embedder──► vector ──Classifier──► category ──index──► neighbour ──Guards──► hit or miss
                                                                           SecondCheck, if on
`Meaning` makes the first three from a policy; `DocumentStore` keeps the answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from epidote_gateway.cache.policy import CachePolicy, CategorySpec

Vector = NDArray[np.float32]  # [dimensions]
Vectors = NDArray[np.float32]  # [num_texts, dimensions]


class Embedder(Protocol):
    """Texts to unit vectors, off the event loop, concurrent calls batched together."""

    @property
    def name(self) -> str:
        """Identifies model, projection and version: vectors of other names are never compared."""
        ...

    @property
    def dimensions(self) -> int: ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 [len(texts), dimensions], each row of length 1 (texts may repeat, not be empty).

        A text longer than the model reads raises nothing: ask `is_whole` first.
        """
        ...

    def is_whole(self, text: str) -> bool:
        """Whether all of `text` is read. Two texts that differ behind the cut look the same."""
        ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Category:
    """What a question is about. `similarity` is the cosine to the category; 0.0 if abstained."""

    name: str
    similarity: float = 0.0


class Classifier(Protocol):
    """Finds a question's category from the vector that is needed anyway."""

    def classify(self, vector: Vector, text: str) -> Category:
        """`policy.DEFAULT_CATEGORY` where it abstains. Called on the event loop: microseconds."""
        ...


class Reason(StrEnum):
    """Why a neighbour above the threshold was refused: label of a metric, part of the header."""

    NUMBERS = "numbers"
    DATES = "dates"
    UNITS = "units"
    NEGATION = "negation"
    QUANTIFIERS = "quantifiers"
    ENTITIES = "entities"
    LANGUAGE = "language"
    CODE = "code"
    SECOND_CHECK = "second-check"


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """`detail` may quote the question: it goes to the admin API, never to logs or headers."""

    reason: Reason
    detail: str = ""


class Guards(Protocol):
    """What must agree between two questions that mean nearly the same."""

    def check(self, asked: str, cached: str) -> Refusal | None:
        """The first difference that forbids serving, None if there is none. Symmetric.

        Called on the event loop for a few neighbours a request: below 0.3 ms a pair.
        """
        ...


class SecondCheck(Protocol):
    """A slower opinion, asked only about a neighbour that passed everything else."""

    async def agrees(self, asked: str, cached: str, answer: str) -> bool:
        """Whether `answer`, given to `cached`, also answers `asked`. Any exception is a no."""
        ...


class Meaning(Protocol):
    """Makes the judges of a policy. Called again with each changed policy.

    `embedder` may return the one it returned before, where nothing of it changed.
    """

    async def embedder(self, policy: CachePolicy) -> Embedder: ...

    async def classifier(self, policy: CachePolicy, embedder: Embedder) -> Classifier:
        """Embeds the exemplars; categories without any are never found."""
        ...

    def guards(self, policy: CachePolicy, category: CategorySpec) -> Guards:
        """Only those of the category that `policy.guards` switches on; none if `enabled` is off."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One entry as stored: what the index needs to find it again, and the answer itself."""

    entry_id: str
    facts: Mapping[str, Any]  # small, JSON: keys, category, times; see `entry.Entry`
    vector: bytes  # float32 little-endian [dimensions]; empty where only compared exactly
    body: bytes  # the answer, encoded by `answer_codec`


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What another gateway (or this one) did to the shared store, in order."""

    entry_id: str
    removed: bool
    facts: Mapping[str, Any] | None = None
    vector: bytes = b""


class DocumentStore(Protocol):
    """Answers on disk or in a server. An entry is there whole or not at all, whatever crashes.

    Every call may raise `StoreUnavailable`; the cache then misses.
    """

    async def put_all(self, documents: Sequence[tuple[Document, float]]) -> None:
        """Keep each for so many seconds at most; on return they survive this process."""
        ...

    async def body(self, entry_id: str) -> bytes | None:
        """None: removed or expired, by whichever gateway."""
        ...

    async def remove(self, entry_ids: Sequence[str]) -> int:
        """How many were there."""
        ...

    async def changes(self, cursor: str, *, limit: int) -> tuple[Sequence[Change], str]:
        """What happened after `cursor` ("" for everything that exists now), and the new cursor.

        About `limit` at a time; none left: an empty sequence. May repeat itself.
        """
        ...

    async def notes(self) -> Mapping[str, str]:
        """Short texts by name that gateways share, a few dozen; see `sharing`."""
        ...

    async def put_note(self, name: str, text: str) -> None:
        """An empty text removes the note."""
        ...

    async def add_note(self, name: str, amount: float) -> None:
        """Add to a note that is a number, 0 if it is not there; two at a time both count."""
        ...

    async def sweep(self) -> None:
        """Now and then: forget what has expired."""
        ...

    async def aclose(self) -> None: ...
