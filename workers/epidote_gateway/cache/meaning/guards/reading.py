"""This file is about what of a question has to agree with another one: its reading."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from epidote_gateway.cache.meaning.guards.languages import language_of
from epidote_gateway.cache.meaning.guards.lexicon import (
    FILLERS,
    IRREGULAR_PAST,
    NEGATING_VERBS,
    NEGATIONS,
    PARTICLES,
    POSSESSIVES,
    QUANTIFIERS,
    SYNONYMS,
    words,
)
from epidote_gateway.cache.meaning.guards.tokens import Kind, Token, tokens_of

_PREPOSITIONS = words(
    """
    from to into onto than before after over under against by with without in on at for of
    between through toward towards since until per via behind above below inside outside
    versus vs minus
    """
)
_AUXILIARIES = words(
    """
    is are was were am do does did can could will would should must has have may might
    """
)
_FOCI = {"who": "who", "whom": "who", "whose": "who", "where": "where", "when": "when",
         "why": "why"}  # fmt: skip
_MEASURED = words(
    """
    many much long far old often tall high deep wide large big heavy fast late early soon
    """
)
_PAST = frozenset({"did", "was", "were", "had"})
_FUTURE = frozenset({"will", "shall"})
_IGNORED = frozenset({*FILLERS, *NEGATIONS, *PARTICLES, *QUANTIFIERS, *POSSESSIVES, *_PREPOSITIONS})


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Content words are canonical (lemma, then synonym). Places count tokens from 0."""

    language: str
    content: tuple[tuple[int, Token], ...]
    bag: Mapping[Token, int]
    negations: int
    particles: frozenset[str]
    quantifiers: Mapping[str, int]
    focus: str  # who, where, when, why, how many …; empty: what, how
    asks_yes_or_no: bool
    obliges: bool  # a yes-or-no question with must or should
    tense: str
    is_either: bool  # `or` between alternatives
    owners: Mapping[str, str]  # content word -> whose
    counted: Mapping[str, str]  # content word or unit -> the number before it
    governed: Mapping[str, frozenset[str]]  # preposition -> content words it governs


@lru_cache(maxsize=4096)
def read(text: str) -> Reading:
    """Cached: an entry is compared again and again."""
    tokens = tokens_of(text)
    said = [token.value if token.kind is Kind.WORD else "" for token in tokens]
    content = _content(tokens)
    return Reading(
        language=language_of(text),
        content=content,
        bag=Counter(token for _, token in content),
        negations=sum(word in NEGATIONS or word in NEGATING_VERBS for word in said),
        particles=frozenset(word for word in said if word in PARTICLES),
        quantifiers=_quantifiers(said),
        focus=_focus(said),
        asks_yes_or_no=bool(said) and said[0] in _AUXILIARIES,
        obliges=bool(said) and said[0] in ("must", "should"),
        tense=_tense(text),
        is_either="or" in said,
        owners=_owners(tokens, dict(content)),
        counted=_counted(content),
        governed=_governed(said, content),
    )


def _content(tokens: tuple[Token, ...]) -> tuple[tuple[int, Token], ...]:
    found = []
    for place, token in enumerate(tokens):
        if token.kind is not Kind.WORD:
            found.append((place, token))
        elif not token.value.startswith("'"):
            word = SYNONYMS.get(token.value, token.value)
            is_measure = token.value in _MEASURED and place > 0 and tokens[place - 1].value == "how"
            if not is_measure and token.value not in _IGNORED and word not in FILLERS:
                found.append((place, Token(Kind.WORD, word)))
    return tuple(found)


def _quantifiers(said: list[str]) -> Mapping[str, int]:
    """`how much` and `how many` are no quantifiers but foci; `for every` stays."""
    found: Counter[str] = Counter(QUANTIFIERS[word] for word in said if word in QUANTIFIERS)
    text = " " + " ".join(said) + " "
    for phrase, name in (
        (" at least ", "minimum"),
        (" at most ", "maximum"),
        (" up to ", "maximum"),
        (" no more than ", "maximum"),
        (" no less than ", "minimum"),
    ):
        if phrase in text:
            found[name] += text.count(phrase)
            for word in ("more", "less"):
                found[word] -= text.count(f" no {word} than ") if word in phrase else 0
    found["minimum"] -= text.count(" at least ") if found["minimum"] > 1 else 0
    return +found


def _focus(said: list[str]) -> str:
    for place, word in enumerate(said):
        if word in _FOCI:
            return _FOCI[word]
        following = said[place + 1] if place + 1 < len(said) else ""
        if word == "how" and following in _MEASURED:
            return f"how {following}"
    return ""


def _tense(text: str) -> str:
    said = [word.strip("?.,!") for word in text.lower().split()]
    if not _FUTURE.isdisjoint(said):
        return "future"
    is_past = any(word in _PAST or word.endswith("ed") or word in IRREGULAR_PAST for word in said)
    return "past" if is_past else ""


def _owners(tokens: tuple[Token, ...], content: Mapping[int, Token]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for place, token in enumerate(tokens):
        if token.value in POSSESSIVES:
            owned = next(
                (content[p].value for p in range(place + 1, place + 4) if p in content), ""
            )
            found[owned] = POSSESSIVES[token.value]
    return found


def _counted(content: tuple[tuple[int, Token], ...]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for (place, number), (following, token) in pairwise(content):
        is_near = following - place <= 2
        if is_near and number.kind is Kind.NUMBER and token.kind is not Kind.NUMBER:
            found[token.value] = number.value
    return found


def _governed(
    said: list[str], content: tuple[tuple[int, Token], ...]
) -> Mapping[str, frozenset[str]]:
    """The next content word after each preposition; `X's Y` counts as `Y of X`."""
    places = [place for place, _ in content]
    found: dict[str, set[str]] = {}
    for place, word in enumerate(said):
        if word in _PREPOSITIONS:
            number = next((n for n, at in enumerate(places) if at > place), None)
            if number is not None:
                found.setdefault(word, set()).add(content[number][1].value)
        elif word == "'s" and place - 1 in places:
            owner = content[places.index(place - 1)][1].value
            found.setdefault("of", set()).add(owner)
    return {preposition: frozenset(governed) for preposition, governed in found.items()}
