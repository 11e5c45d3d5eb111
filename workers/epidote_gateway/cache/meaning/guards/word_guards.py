"""This file is about the guards that a policy switches on, asked in one order."""

from collections.abc import Collection, Iterator

from epidote_gateway.cache.meaning.guards.comparison import (
    case_difference,
    content_difference,
    count_difference,
    figure_difference,
    focus_difference,
    limit_difference,
    negation_difference,
    operation_difference,
    person_difference,
    plural_difference,
    scope_difference,
    tense_difference,
)
from epidote_gateway.cache.meaning.guards.limits import ordinal_difference
from epidote_gateway.cache.meaning.guards.question_token import Kind
from epidote_gateway.cache.meaning.guards.reading import Reading, read
from epidote_gateway.cache.meaning.guards.word_order import order_difference
from epidote_gateway.cache.policy import Guard, GuardsSpec
from epidote_gateway.cache.protocols import Reason, Refusal

MAX_CHARACTERS = 4096  # of a question that is read: some 10 ms; a sentence model reads less


class WordGuards:
    """Two questions agree if what is left of them without fillers and synonyms is the same.

    Strict on purpose: a word that only one of them has refuses, unless the lexicon says that it
    carries nothing. What a sentence model can't tell apart (another number, country, direction) is
    just what such words carry. English; questions in other languages have no fillers or synonyms
    here and hit only nearly letter by letter.
    """

    def __init__(self, spec: GuardsSpec, only: Collection[Guard] = tuple(Guard)) -> None:
        """Those of `only` that `spec` switches on."""
        self._on = {
            Reason(guard.value) for guard in only if spec.enabled and getattr(spec, guard.value)
        }

    def check(self, asked: str, cached: str) -> Refusal | None:
        """See `protocols.Guards.check`."""
        if not self._on or asked == cached:
            return None
        if max(len(asked), len(cached)) > MAX_CHARACTERS:
            return Refusal(reason=Reason.ENTITIES, detail="too long to compare")
        one, other = sorted((asked, cached))  # the same verdict in either order
        for refusal in differences(read(one), read(other)):
            if refusal.reason in self._on:
                return refusal
        return None


def differences(asked: Reading, cached: Reading) -> Iterator[Refusal]:
    """Every difference that may change the answer, the surest kind first."""
    if asked.language and cached.language and asked.language != cached.language:
        yield Refusal(reason=Reason.LANGUAGE, detail=f"{asked.language} and {cached.language}")
    denied = negation_difference(asked, cached)
    if denied:
        yield Refusal(reason=Reason.NEGATION, detail=denied)
    if asked.particles != cached.particles:
        detail = f"{sorted(asked.particles)} and {sorted(cached.particles)}"
        yield Refusal(reason=Reason.NEGATION, detail=detail)
    yield from content_difference(asked, cached)
    for reason, detail in (
        (Reason.NUMBERS, limit_difference(asked, cached, Kind.NUMBER)),
        (Reason.DATES, limit_difference(asked, cached, Kind.DATE)),
        (Reason.NUMBERS, figure_difference(asked, cached)),
        (Reason.CODE, operation_difference(asked, cached)),
    ):
        if detail:
            yield Refusal(reason=reason, detail=detail)
    other_ordinal = ordinal_difference(asked.quantifiers.keys(), cached.quantifiers.keys())
    if other_ordinal is not None:
        yield other_ordinal
    if asked.quantifiers != cached.quantifiers or asked.is_either != cached.is_either:
        detail = f"{sorted(asked.quantifiers)} and {sorted(cached.quantifiers)}"
        yield Refusal(reason=Reason.QUANTIFIERS, detail=detail)
    for reason, detail in (
        (Reason.NUMBERS, count_difference(asked, cached)),
        (Reason.QUANTIFIERS, scope_difference(asked, cached)),
        (Reason.QUANTIFIERS, order_difference(asked, cached)),
        (Reason.QUANTIFIERS, plural_difference(asked, cached)),
        (Reason.QUANTIFIERS, focus_difference(asked, cached)),
        (Reason.QUANTIFIERS, tense_difference(asked, cached)),
        (Reason.ENTITIES, person_difference(asked, cached)),
        (Reason.ENTITIES, case_difference(asked, cached)),
    ):
        if detail:
            yield Refusal(reason=reason, detail=detail)
