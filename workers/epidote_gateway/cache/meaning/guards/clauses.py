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
from epidote_gateway.cache.meaning.guards.question_token import Kind, Token

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
    below outside versus vs minus per deadline
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
_PARTING = PREPOSITIONS | _SUBORDINATING | _COORDINATING
_GOVERNING = PREPOSITIONS | _SUBORDINATING
Place = tuple[int, Token]


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Content words by the part that they stand in. Values are canonical."""

    segment_of: Mapping[str, int]  # first occurrence
    place_of: Mapping[str, int]  # among the tokens, likewise
    repeated: frozenset[str]
    coordinates: tuple[frozenset[str], ...]
    clauses: tuple[tuple[str, frozenset[str]], ...]  # conjunction ("" for the main one), words


@dataclass(frozen=True, slots=True, eq=False)
class Prepositions:
    """What stands behind which preposition; `X's Y` counts as `Y of X`."""

    heads: Mapping[str, frozenset[str]]  # the next content word
    governed: Mapping[str, frozenset[str]]  # content words up to the next part
    stranded: frozenset[str]  # with nothing behind them: Who does she report to?
    agents: frozenset[str]  # content words behind the `by` of a passive


def groups_of(tokens: Sequence[Token], said: Sequence[str], content: Sequence[Place]) -> Groups:
    """`said` are the tokens' words ("" for others), `content` places and tokens of content."""
    at = dict(content)
    segment_of: dict[str, int] = {}
    place_of: dict[str, int] = {}
    coordinates: list[set[str]] = [set()]
    clauses: list[tuple[str, set[str]]] = [("", set())]
    segment = 0
    for place, (token, word) in enumerate(zip(tokens, said, strict=True)):
        is_break = token.kind is Kind.BREAK
        segment += is_break or word in _PARTING
        clause = _clause(said, place)
        if clause in WH and not any(part for _, part in clauses):
            clause = None  # I wonder what happens: nothing was said before
        if clause is not None or is_break:
            clauses.append((clause or "", set()))
        if is_break or word in _COORDINATING:
            coordinates.append(set())
        if word in PARTICLES:
            coordinates[-1].add(word)
        if place in at:
            value = at[place].value
            segment_of.setdefault(value, segment)
            place_of.setdefault(value, place)
            coordinates[-1].add(value)
            clauses[-1][1].add(value)
    counts = Counter(token.value for _, token in content)
    return Groups(
        segment_of=segment_of,
        place_of=place_of,
        repeated=frozenset(value for value, count in counts.items() if count > 1),
        coordinates=tuple(frozenset(part) for part in coordinates if part),
        clauses=tuple((name, frozenset(part)) for name, part in clauses if part),
    )


def prepositions_of(
    tokens: Sequence[Token], said: Sequence[str], content: Sequence[Place]
) -> Prepositions:
    """Arguments as for `groups_of`."""
    at = dict(content)
    heads: dict[str, set[str]] = {}
    governed: dict[str, set[str]] = {}
    stranded, agents = set(), set()
    preposition, is_fresh, is_agent, previous = "", False, False, ""
    for place, (token, word) in enumerate(zip(tokens, said, strict=True)):
        if preposition == "than" and is_fresh and word == "to":
            continue  # than to buy
        if token.kind is Kind.BREAK or word in _GOVERNING:
            is_infinitive = preposition == "to" and token.kind is not Kind.BREAK  # to be, to get
            if preposition and is_fresh and not is_infinitive:
                stranded.add(preposition)
            preposition, is_fresh = (word, True) if word in PREPOSITIONS else ("", False)
            is_agent = word == "by" and is_past_form(previous)
        if token.kind is Kind.WORD:
            previous = token.written or previous
        if word == "'s" and place - 1 in at:
            heads.setdefault("of", set()).add(at[place - 1].value)
            first = place - 1
            while first in at:  # Mount Everest's
                governed.setdefault("of", set()).add(at[first].value)
                first -= 1
        if place in at and preposition:
            value = at[place].value
            governed.setdefault(preposition, set()).add(value)
            if is_fresh:
                heads.setdefault(preposition, set()).add(value)
            if is_fresh and is_agent:
                agents.add(value)
            is_fresh = False
    if preposition and is_fresh:
        stranded.add(preposition)
    return Prepositions(
        heads={name: frozenset(found) for name, found in heads.items()},
        governed={name: frozenset(found) for name, found in governed.items()},
        stranded=frozenset(stranded),
        agents=frozenset(agents),
    )


def _clause(said: Sequence[str], place: int) -> str | None:
    """The conjunction if a clause begins at `place`; None if none does. Questions begin with the
    same words as clauses do: What is it? When inflation is high, what is it?"""
    word = said[place]
    if word not in _SUBORDINATING:
        return None
    is_first = place == 0 or said[place - 1] == ""
    if is_first and word in WH:
        following = said[place + 1] if place + 1 < len(said) else ""
        if word not in ("when", "while", "where") or following in AUXILIARIES:
            return None
    return {"when": "if", "whether": "if"}.get(word, word)


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
