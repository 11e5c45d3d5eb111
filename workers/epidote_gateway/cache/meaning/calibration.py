"""This file is about making a policy's thresholds from labelled questions.

The questions are parted twice, answer by answer. One half makes the projection and the exemplars.
The other half is asked of itself: half of it cached, half asked, then the other way round; those
trials choose the thresholds. Nothing is chosen on what it was fitted to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from epidote_gateway.cache.meaning.break_even import break_even_hit_ratio
from epidote_gateway.cache.meaning.classifier import ExemplarClassifier
from epidote_gateway.cache.meaning.labelled_questions import LabelledPair, Question
from epidote_gateway.cache.meaning.projection import (
    Projection,
    fit_discriminants,
    fit_principal,
)
from epidote_gateway.cache.meaning.thresholds import (
    Threshold,
    category_thresholds,
    outside_floor,
)
from epidote_gateway.cache.meaning.trials import (
    BLOCK,
    Embedded,
    Trials,
    ask,
    halves,
    joined,
    pair_trials,
)
from epidote_gateway.cache.policy import (
    DEFAULT_CATEGORY,
    CachePolicy,
    ClassifierSpec,
    Guard,
    Precision,
)
from epidote_gateway.cache.protocols import Guards, Vectors
from epidote_gateway.cache.quantization import dequantize, quantize


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a calibration aims at. Shares in [0, 1], times in seconds."""

    precision: float = 0.95  # of hits, in every category
    outside_share: float = 0.01  # of out-of-scope questions that may be served
    confidence: float = 0.95  # of both
    projection: str = ""  # discriminants, principal, or none
    dimensions: int = 128
    exemplars: int = 150  # at most, a category
    guards: tuple[Guard, ...] = tuple(Guard)  # that judge, and go into the policy
    search_s: float = 0.010  # of a miss, embedding included
    fetch_s: float = 0.005
    answer_s: Mapping[str, float] = field(default_factory=dict)  # by category; `default`: others

    def break_even(self, category: str) -> float:
        answer_s = self.answer_s.get(category, self.answer_s.get(DEFAULT_CATEGORY))
        if answer_s is None:
            return 0.0  # nobody knows: always look
        return break_even_hit_ratio(search_s=self.search_s, fetch_s=self.fetch_s, answer_s=answer_s)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """`is_sure_outside` False: too few out-of-scope questions to be sure with that confidence."""

    wanted: Wanted
    thresholds: Mapping[str, Threshold]
    exemplars: Mapping[str, Sequence[str]]
    projection: Projection | None
    floor: float
    is_sure_outside: bool
    num_outside: int

    def policy(self, base: CachePolicy, *, projection_path: str = "") -> dict[str, Any]:
        """`base` as a camelCase mapping, with thresholds, break-evens and exemplars filled in."""
        found = base.model_dump(mode="json", by_alias=True, exclude_unset=True)
        if projection_path:
            found.setdefault("embedder", {})["projection"] = projection_path
        given = {category["name"]: category for category in found.get("categories", [])}
        for name, threshold in self.thresholds.items():
            category = given.setdefault(name, {"name": name})
            category["semantic"] = threshold.value is not None
            category["guards"] = [guard.value for guard in self.wanted.guards]
            if set(self.wanted.guards) == set(Guard):
                del category["guards"]
            if threshold.value is not None:
                category["threshold"] = threshold.value
            category["breakEvenHitRatio"] = round(self.wanted.break_even(name), 4)
            if self.exemplars.get(name):
                category["exemplars"] = list(self.exemplars[name])
        found["categories"] = list(given.values())
        return found


def calibrate(
    questions: Sequence[Question],
    vectors: Vectors,
    *,
    wanted: Wanted,
    guards: Guards | None,
    model: str,
    seed: int,
    classifier: ClassifierSpec | None = None,
    precision: Precision = Precision.FLOAT32,
) -> Calibration:
    """`vectors` [len(questions), dimensions] of the sentence model, before any projection.

    Raises:
        ValueError: too few questions or answers for what is wanted.
    """
    rng = Random(seed)
    fit, tune = halves(questions, rng)
    if len(tune) < 4:
        raise ValueError(f"wanted at least 8 questions with answers, got {len(fit) + len(tune)}")
    projection = _projection([questions[place] for place in fit], vectors[fit], wanted, model)
    seen = stored(vectors if projection is None else projection(vectors), precision)
    categories = sorted({question.category for question in questions if question.answer})
    chosen = _exemplars(questions, fit, categories, wanted.exemplars, rng)
    judge = ExemplarClassifier(
        {name: seen[places] for name, places in chosen.items()}, classifier or ClassifierSpec()
    )
    outside = [place for place, question in enumerate(questions) if question.answer is None]
    trials = cross_trials(embedded(questions, seen, judge), tune, outside, guards, rng)
    floor, is_sure = outside_floor(
        trials.similarity[trials.is_outside][: len(outside)],
        share=wanted.outside_share,
        confidence=wanted.confidence,
    )
    return Calibration(
        wanted=wanted,
        thresholds=category_thresholds(
            trials,
            sorted({*categories, DEFAULT_CATEGORY}),
            precision=wanted.precision,
            confidence=wanted.confidence,
            floor=floor,
        ),
        exemplars={
            name: [questions[place].text for place in places] for name, places in chosen.items()
        },
        projection=projection,
        floor=floor,
        is_sure_outside=is_sure,
        num_outside=len(outside),
    )


def calibrate_pairs(
    pairs: Sequence[LabelledPair],
    asked: Vectors,
    cached: Vectors,
    *,
    wanted: Wanted,
    guards: Guards | None,
) -> Calibration:
    """From labelled pairs, vectors [len(pairs), dimensions] each: thresholds and nothing else."""
    trials = pair_trials(pairs, asked, cached, guards)
    return Calibration(
        wanted=wanted,
        thresholds=category_thresholds(
            trials,
            sorted({pair.category for pair in pairs}),
            precision=wanted.precision,
            confidence=wanted.confidence,
            floor=-1.0,
        ),
        exemplars={},
        projection=None,
        floor=-1.0,
        is_sure_outside=False,
        num_outside=0,
    )


def stored(vectors: Vectors, precision: Precision) -> Vectors:
    """As a store with `precision` gives them back."""
    if precision is Precision.FLOAT32:
        return vectors
    found = vectors.copy()
    for row in found:
        row[:] = dequantize(quantize(row, precision))
    return found


def embedded(
    questions: Sequence[Question], vectors: Vectors, classifier: ExemplarClassifier
) -> Embedded:
    names: list[str] = []
    for start in range(0, len(vectors), BLOCK):
        block = classifier.classify_all(vectors[start : start + BLOCK])
        names += [category.name for category in block]
    return Embedded(questions=questions, vectors=vectors, categories=names)


def cross_trials(
    known: Embedded,
    places: Sequence[int],
    outside: Sequence[int],
    guards: Guards | None,
    rng: Random,
) -> Trials:
    """Half of `places` cached and the other half asked, then the other way round; `outside` asked
    of both caches, the first one's trials first."""
    part = known.at(places)
    first, second = halves(part.questions, rng)
    one, other, strangers = part.at(first), part.at(second), known.at(outside)
    caches = [(other, one), (one, other)]
    parts = [ask(strangers, cached, guards) for _, cached in caches]
    return joined([*parts, *(ask(asked, cached, guards) for asked, cached in caches)])


def _projection(
    questions: Sequence[Question], vectors: Vectors, wanted: Wanted, model: str
) -> Projection | None:
    match wanted.projection:
        case "":
            return None
        case "principal":
            return fit_principal(vectors, wanted.dimensions, model=model)
        case "discriminants":
            labels = [question.answer or "" for question in questions]
            most = min(wanted.dimensions, len(set(labels)) - 1)
            return fit_discriminants(vectors, labels, most, model=model)
        case other:
            raise ValueError(f"projection: must be discriminants or principal, got {other!r}")


def _exemplars(
    questions: Sequence[Question],
    places: Sequence[int],
    categories: Sequence[str],
    most: int,
    rng: Random,
) -> Mapping[str, list[int]]:
    """Up to `most` places of each category but `default`, equally from each of its answers."""
    found: dict[str, list[int]] = {}
    for name in categories:
        if name == DEFAULT_CATEGORY:
            continue
        by_answer: dict[str | None, list[int]] = {}
        for place in places:
            if questions[place].category == name:
                by_answer.setdefault(questions[place].answer, []).append(place)
        rows = [rng.sample(of_answer, len(of_answer)) for of_answer in by_answer.values()]
        turns = [place for turn in _turns(rows) for place in turn]
        found[name] = turns[:most]
    return found


def _turns(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    longest = max((len(row) for row in rows), default=0)
    return [[row[turn] for row in rows if turn < len(row)] for turn in range(longest)]
