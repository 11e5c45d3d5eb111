"""This file is about playing a cache through: what would each question be served, how surely.

The same steps as `cache.lookup`: neighbours of the same category, nearest first, until the guards
let one pass. No threshold yet: that is what the trials are for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epidote_gateway.cache.meaning.labelled_questions import LabelledPair, Question
from epidote_gateway.cache.protocols import Guards, Vectors

NEIGHBOURS = 8  # as many as a look-up tries
BLOCK = 512  # questions compared at once; bounds the memory
NOTHING = -2.0  # similarity where no neighbour was found: below every cosine


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials:
    """One row a question asked: the neighbour that it would be served at a low enough threshold."""

    similarity: NDArray[np.float32]  # to the neighbour; `NOTHING` if there is none
    is_right: NDArray[np.bool_]  # whether both have the same answer
    category: NDArray[Any]  # names, as the classifier found them
    is_outside: NDArray[np.bool_]  # out of scope: nothing that is cached answers it

    def __len__(self) -> int:
        return len(self.similarity)

    def of(self, category: str) -> "Trials":
        return self.where(self.category == category)

    def where(self, mask: NDArray[np.bool_]) -> "Trials":
        return Trials(
            similarity=self.similarity[mask],
            is_right=self.is_right[mask],
            category=self.category[mask],
            is_outside=self.is_outside[mask],
        )


def joined(parts: Sequence[Trials]) -> Trials:
    return Trials(
        similarity=np.concatenate([part.similarity for part in parts]),
        is_right=np.concatenate([part.is_right for part in parts]),
        category=np.concatenate([part.category for part in parts]),
        is_outside=np.concatenate([part.is_outside for part in parts]),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedded:
    """Questions with their vectors [n, dimensions] and the categories the classifier found."""

    questions: Sequence[Question]
    vectors: Vectors
    categories: Sequence[str]

    def at(self, places: Sequence[int]) -> "Embedded":
        return Embedded(
            questions=[self.questions[place] for place in places],
            vectors=self.vectors[list(places)],
            categories=[self.categories[place] for place in places],
        )


def halves(questions: Sequence[Question], rng: Random) -> tuple[list[int], list[int]]:
    """Places of two halves; each answer's questions fall equally into both. None out of scope."""
    by_answer: dict[str, list[int]] = {}
    for place, question in enumerate(questions):
        if question.answer is not None:
            by_answer.setdefault(question.answer, []).append(place)
    first: list[int] = []
    second: list[int] = []
    for answer in sorted(by_answer):
        places = by_answer[answer]
        rng.shuffle(places)
        middle = (len(places) + len(first) % 2) // 2
        first += places[:middle]
        second += places[middle:]
    return first, second


def ask(asked: Embedded, cached: Embedded, guards: Guards | None) -> Trials:
    """Ask every one of `asked` of a cache that holds `cached`."""
    similarity = np.full(len(asked.questions), NOTHING, np.float32)
    is_right = np.zeros(len(asked.questions), np.bool_)
    cached_names = np.asarray(cached.categories)
    asked_names = np.asarray(asked.categories)
    for name in sorted(set(asked.categories) & set(cached.categories)):
        rows = np.flatnonzero(cached_names == name)
        places = np.flatnonzero(asked_names == name)
        for start in range(0, len(places), BLOCK):
            block = places[start : start + BLOCK]
            cosines = asked.vectors[block] @ cached.vectors[rows].T
            near = _nearest(cosines, 1 if guards is None else NEIGHBOURS)
            for place, row, order in zip(block, cosines, near, strict=True):
                question = asked.questions[int(place)]
                for column in order:
                    neighbour = cached.questions[int(rows[column])]
                    if guards is None or guards.check(question.text, neighbour.text) is None:
                        similarity[place] = row[column]
                        is_right[place] = question.answer is not None and (
                            question.answer == neighbour.answer
                        )
                        break
    return Trials(
        similarity=similarity,
        is_right=is_right,
        category=asked_names,
        is_outside=np.array([question.answer is None for question in asked.questions], np.bool_),
    )


def _nearest(cosines: Vectors, count: int) -> NDArray[np.intp]:
    """Columns of each row's `count` largest, largest first."""
    if cosines.shape[1] > count:
        some = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    else:
        some = np.tile(np.arange(cosines.shape[1]), (len(cosines), 1))
    order = np.argsort(-np.take_along_axis(cosines, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)


def pair_trials(
    pairs: Sequence[LabelledPair], asked: Vectors, cached: Vectors, guards: Guards | None
) -> Trials:
    """Pairs as trials: each asks for its one neighbour. Vectors [len(pairs), dimensions]."""
    cosines = (asked * cached).sum(axis=1)
    passes = np.array(
        [guards is None or guards.check(pair.asked, pair.cached) is None for pair in pairs],
        np.bool_,
    )
    return Trials(
        similarity=np.where(passes, cosines, np.float32(NOTHING)).astype(np.float32),
        is_right=np.array([pair.is_same for pair in pairs], np.bool_),
        category=np.array([pair.category for pair in pairs]),
        is_outside=np.zeros(len(pairs), np.bool_),
    )
