"""This file is about how a question falls into parts, and which words belong together.

segment      between prepositions, conjunctions and commas: inside one, order tells who does what
coordinate   between and, but, or, commas: what stands in one belongs together
scope        what a `not` or an `only` is about: the next content word
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from epidote_gateway.cache.meaning.guards.grammar import AUXILIARIES, PERSONS, is_past_form
from epidote_gateway.cache.meaning.guards.lexicon import PARTICLES, words
from epidote_gateway.cache.meaning.guards.tokens import Kind, Token

PREPOSITIONS = words(
    """
    from to into onto than before after over under against by with without in on at for of
    between through toward towards since until per via behind above below inside outside
    versus vs minus within during
    """
)
STRONG = words(
    """
    before after over under against between through toward towards since until via behind above
    below outside versus vs minus per
    """
)  # never the same as another preposition, or as none
_COORDINATING = words("and but or nor plus then yet")
_SUBORDINATING = words(
    """
    if because while although though whether that unless which who whom whose when where why how
    what so
    """
)
WH = words("what which who whom whose when where why how")
Place = tuple[int, Token]


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Content words by where they stand. Values are canonical."""

    segment_of: Mapping[str, int]  # first occurrence
    place_of: Mapping[str, int]  # among the tokens, likewise
    repeated: frozenset[str]
    coordinates: tuple[frozenset[str], ...]
    heads: Mapping[str, frozenset[str]]  # preposition -> next content word
    governed: Mapping[str, frozenset[str]]  # preposition -> content words up to the next part
    stranded: frozenset[str]  # prepositions with nothing behind them: Who does she report to?
    agents: frozenset[str]  # content words behind the `by` of a passive
    copulas: tuple[int, ...]  # places of a verb `to be`
    asked_for: frozenset[int]  # places right behind `what` or `which`
    auxiliaries: frozenset[int]


def parts_of(tokens: Sequence[Token], said: Sequence[str], content: Sequence[Place]) -> Parts:
    """`said` are the tokens' words ("" for others), `content` places and tokens of content."""
    at = dict(content)
    segment_of: dict[str, int] = {}
    place_of: dict[str, int] = {}
    coordinates: list[set[str]] = [set()]
    heads: dict[str, set[str]] = {}
    governed: dict[str, set[str]] = {}
    stranded, agents = set(), set()
    segment, preposition, is_fresh = 0, "", False
    previous = ""
    for place, (token, word) in enumerate(zip(tokens, said, strict=True)):
        if word in PREPOSITIONS or word in _SUBORDINATING or word in _COORDINATING:
            segment += 1
        if token.kind is Kind.BREAK or word in _COORDINATING:
            segment += 1
            coordinates.append(set())
        if word in PREPOSITIONS or token.kind is Kind.BREAK or word in _SUBORDINATING:
            is_infinitive = preposition == "to" and token.kind is not Kind.BREAK  # to be, to get
            if preposition and is_fresh and not is_infinitive:
                stranded.add(preposition)
            preposition, is_fresh = (word, True) if word in PREPOSITIONS else ("", False)
            is_agent = word == "by" and is_past_form(previous)
        if token.kind is Kind.WORD:
            previous = token.written or previous
        if word in PARTICLES:
            coordinates[-1].add(word)
        if word == "'s" and place - 1 in at:
            heads.setdefault("of", set()).add(at[place - 1].value)
            governed.setdefault("of", set()).add(at[place - 1].value)
        if place not in at:
            continue
        value = at[place].value
        segment_of.setdefault(value, segment)
        place_of.setdefault(value, place)
        coordinates[-1].add(value)
        if preposition:
            if is_fresh:
                heads.setdefault(preposition, set()).add(value)
                if is_agent:
                    agents.add(value)
            governed.setdefault(preposition, set()).add(value)
            is_fresh = False
    if preposition and is_fresh:
        stranded.add(preposition)
    counts = Counter(token.value for _, token in content)
    return Parts(
        segment_of=segment_of,
        place_of=place_of,
        repeated=frozenset(value for value, count in counts.items() if count > 1),
        coordinates=tuple(frozenset(part) for part in coordinates if part),
        heads={name: frozenset(found) for name, found in heads.items()},
        governed={name: frozenset(found) for name, found in governed.items()},
        stranded=frozenset(stranded - {"up"}),
        agents=frozenset(agents),
        copulas=tuple(n for n, word in enumerate(said) if word in ("is", "are", "was", "were")),
        asked_for=frozenset(n + 1 for n, word in enumerate(said) if word in ("what", "which")),
        auxiliaries=frozenset(n for n, word in enumerate(said) if word in AUXILIARIES),
    )


def scopes(
    tokens: Sequence[Token],
    said: Sequence[str],
    content: Sequence[Place],
    name_of: Callable[[str], str],
) -> Mapping[str, Counter[str]]:
    """What each operator is about: the next content word of its sentence, else the one before.

    `name_of(word)` is the operator's name, "" for other words.
    """
    found: dict[str, Counter[str]] = {}
    for place, word in enumerate(said):
        name = name_of(word)
        if not name:
            continue
        end = next(
            (n for n in range(place, len(tokens)) if tokens[n].kind is Kind.BREAK), len(tokens)
        )
        about = next((token.value for at, token in content if place <= at < end), "")
        if not about:
            about = next((token.value for at, token in reversed(content) if at < place), "")
        found.setdefault(name, Counter())[about] += 1
    return found


def end_of_part(tokens: Sequence[Token], said: Sequence[str], place: int) -> int:
    """Where what is said at `place` ends: before the next conjunction or comma."""
    ends = (
        at
        for at in range(place + 1, len(tokens))
        if tokens[at].kind is Kind.BREAK or said[at] in _COORDINATING
    )
    return next(ends, len(tokens))


def is_inverted(said: Sequence[str], place: int) -> bool:
    """Whether the negation at `place` hangs on the verb before the subject: Why isn't it on?"""
    at = place if said[place] not in ("not", "never") else place - 1
    if at < 0 or (at < place and said[at] not in AUXILIARIES):
        return False
    if at == place and not said[at].endswith(("nt", "cannot")):
        return False
    before = said[:at]
    return not before or (before[0] in WH and len(before) <= 4 and not PERSONS.keys() & {*before})


def neighbours(content: Sequence[Place]) -> frozenset[tuple[str, str]]:
    """Content words right beside each other, nothing between them."""
    return frozenset(
        (one.value, other.value) for (a, one), (b, other) in pairwise(content) if b == a + 1
    )
