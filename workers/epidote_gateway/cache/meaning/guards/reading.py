"""This file is about what of a question has to agree with another one: its reading."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from epidote_gateway.cache.meaning.guards.clauses import (
    PREPOSITIONS,
    Groups,
    Place,
    Prepositions,
    end_of_part,
    groups_of,
    is_inverted,
    neighbours,
    prepositions_of,
    scopes,
)
from epidote_gateway.cache.meaning.guards.grammar import (
    AUXILIARIES,
    asker,
    main_verbs,
    modality,
    passives,
    past_forms,
    persons,
    plurals,
    tense,
)
from epidote_gateway.cache.meaning.guards.languages import language_of
from epidote_gateway.cache.meaning.guards.letter_case import letter_cases
from epidote_gateway.cache.meaning.guards.lexicon import (
    ABOUT_WORDS,
    FILLERS,
    GREETINGS,
    NEGATING_VERBS,
    NEGATIONS,
    PARTICLES,
    POSSESSIVES,
    QUANTIFIERS,
    SYNONYMS,
    words,
)
from epidote_gateway.cache.meaning.guards.limits import commutes, figures, limits, operations
from epidote_gateway.cache.meaning.guards.question_token import Kind, Token
from epidote_gateway.cache.meaning.guards.tokens import tokens_of

_FOCI = {"who": "who", "whom": "who", "whose": "who", "where": "where", "when": "when",
         "why": "why"}  # fmt: skip
_MEASURED = words(
    """
    many much long far old often tall high deep wide large big heavy fast late early soon
    """
)
_IGNORED = frozenset({*FILLERS, *NEGATIONS, *PARTICLES, *QUANTIFIERS, *POSSESSIVES, *PREPOSITIONS})
_COPULAS = words("is are was were")
_ASKING = words("what which")
_UNSCOPED = frozenset(
    {"either", "minimum", "maximum", "best", "worst", "together", "again", "never"}
)


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Content words are canonical (lemma, then synonym). Places count tokens from 0."""

    language: str
    content: tuple[Place, ...]
    bag: Mapping[Token, int]
    cases: Mapping[str, str]  # content word -> how its letters are; see `letter_case`
    negations: int
    negated: tuple[frozenset[str], ...]  # what each of them may be about
    particles: frozenset[str]
    quantifiers: Mapping[str, int]
    scopes: Mapping[str, Counter[str]]  # quantifier -> what it is about
    focus: str  # who, where, when, why, how many …; empty: what, how
    asks_how: bool
    asks_yes_or_no: bool
    modality: str
    tense: str
    past: frozenset[str]  # content words in a past form
    passives: frozenset[str]
    persons: tuple[str, ...]
    main_verbs: frozenset[str]
    is_either: bool  # `or` between alternatives
    owners: Mapping[str, str]  # content word -> whose
    counted: Mapping[str, str]  # content word or unit -> the number before it
    groups: Groups
    prepositions: Prepositions
    copulas: frozenset[int]  # places of a verb `to be`
    auxiliaries: frozenset[int]
    asked_for: frozenset[int]  # places right behind `what` or `which`
    adjacent: frozenset[tuple[str, str]]
    limits: Mapping[Token, str]  # number or date -> `at most`, `after` … as a sign
    figures: tuple[str, ...]  # numbers in an order that matters
    operations: tuple[str, ...]  # operators and calls of an expression, in order
    commutes: bool  # several numbers whose order does not
    plurals: Mapping[str, bool]  # owned or asked-for noun -> is it a plural
    asker: str  # `I` or `we` in the past


@lru_cache(maxsize=4096)
def read(text: str) -> Reading:
    """Cached: an entry is compared again and again."""
    tokens = tokens_of(text)
    said = [token.value if token.kind is Kind.WORD else "" for token in tokens]
    written = [token.written or word for token, word in zip(tokens, said, strict=True)]
    language = language_of(text)
    content = _content(tokens, written, language)
    focus = _focus(said)
    asks_how = "how" in said[:2] and not focus
    return Reading(
        language=language,
        content=content,
        bag=Counter(token for _, token in content),
        cases=letter_cases(text, tokens, content),
        negations=sum(_is_negation(word) for word in said),
        negated=_negated(tokens, said, content),
        particles=frozenset(word for word in said if word in PARTICLES),
        quantifiers=_quantifiers(said),
        scopes=scopes(tokens, said, content, _scoped),
        focus=focus,
        asks_how=asks_how,
        asks_yes_or_no=bool(said) and said[0] in AUXILIARIES,
        modality=modality(said),
        tense=tense(written),
        past=past_forms({token.value: token.written for _, token in content}),
        passives=passives(written, said),
        persons=persons(said, focus),
        main_verbs=main_verbs(said),
        is_either="or" in said,
        owners=_owners(tokens, dict(content)),
        counted=_counted(content),
        groups=groups_of(tokens, said, content),
        prepositions=prepositions_of(tokens, said, content),
        copulas=_places(said, _COPULAS),
        auxiliaries=_places(said, AUXILIARIES),
        asked_for=frozenset(place + 1 for place in _places(said, _ASKING)),
        adjacent=neighbours(content),
        limits=limits(tokens),
        figures=figures(tokens),
        operations=() if commutes(tokens) else operations(tokens),
        commutes=commutes(tokens),
        plurals=plurals(tokens, said),
        asker=asker(written),
    )


def _content(tokens: Sequence[Token], written: Sequence[str], language: str) -> tuple[Place, ...]:
    """English has fillers and synonyms here; of other languages every word is content, as of
    questions about words. `IT` and `US` are no fillers, unless everything is in capitals.
    """
    is_about_words = any(word.lower() in ABOUT_WORDS for word in written)
    is_free = language in ("", "en") and not is_about_words
    num_shouted = sum(len(word) > 1 and word.isupper() for word in written)
    is_shouted = 2 * num_shouted > len(written)
    found = []
    for place, token in enumerate(tokens):
        if token.kind is Kind.BREAK or token.value.startswith("'"):
            continue
        if token.kind is Kind.WORD and not is_free:
            token = Token(Kind.WORD, written[place].lower(), token.written)
        if token.kind is not Kind.WORD or not is_free:
            found.append((place, token))
            continue
        word = SYNONYMS.get(token.value, token.value)
        is_measure = token.value in _MEASURED and place > 0 and tokens[place - 1].value == "how"
        is_filler = is_measure or token.value in _IGNORED or word in FILLERS
        is_name = len(token.written) > 1 and token.written.isupper() and not is_shouted
        if is_filler and is_name and token.value in FILLERS - GREETINGS:
            word, is_filler = SYNONYMS.get(token.written, token.written), False
        if not is_filler:
            found.append((place, Token(Kind.WORD, word, token.written)))
    return tuple(found)


def _places(said: Sequence[str], which: Set[str]) -> frozenset[int]:
    return frozenset(place for place, word in enumerate(said) if word in which)


def _is_negation(word: str) -> bool:
    return word in NEGATIONS or word in NEGATING_VERBS


def _negated(
    tokens: Sequence[Token], said: Sequence[str], content: Sequence[Place]
) -> tuple[frozenset[str], ...]:
    """What each negation may be about. `Why isn't my phone charging` denies the charging, or that
    it is the phone: either agrees with `Why is my phone not charging`."""
    found = []
    for place, word in enumerate(said):
        if not _is_negation(word):
            continue
        about: set[str] = set()
        for counter in scopes(
            tokens, [w if n == place else "" for n, w in enumerate(said)], content, str
        ).values():
            about |= counter.keys()
        if is_inverted(said, place):
            end = end_of_part(tokens, said, place)
            about |= {token.value for at, token in content if place < at < end}
        found.append(frozenset(about))
    return tuple(found)


def _scoped(word: str) -> str:
    name = QUANTIFIERS.get(word, "")
    return "" if name in _UNSCOPED else name


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


def _owners(tokens: Sequence[Token], content: Mapping[int, Token]) -> Mapping[str, str]:
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
        is_operator = token.kind is Kind.CODE and not any(c.isalnum() for c in token.value)
        is_thing = token.kind is not Kind.NUMBER and not is_operator
        if is_near and number.kind is Kind.NUMBER and is_thing:
            found[token.value] = number.value
    return found
