"""This file is about two readings: what one has that the other lacks, and what changed places."""

from collections.abc import Mapping
from itertools import takewhile

from epidote_gateway.cache.meaning.guards.lexicon import (
    FORMS,
    LIGHT,
    OPPOSING_PREFIXES,
    OPPOSITE_WORDS,
    OPPOSITES,
)
from epidote_gateway.cache.meaning.guards.reading import Reading
from epidote_gateway.cache.meaning.guards.tokens import Kind, Token
from epidote_gateway.cache.protocols import Reason, Refusal

_REASON_OF = {
    Kind.NUMBER: Reason.NUMBERS,
    Kind.DATE: Reason.DATES,
    Kind.UNIT: Reason.UNITS,
    Kind.CODE: Reason.CODE,
}


def content_difference(asked: Reading, cached: Reading) -> list[Refusal]:
    """One refusal for each kind of content that is in one question and not in the other."""
    only_asked, only_cached = _unmatched(asked, cached)
    found: dict[Reason, Refusal] = {}
    for kind, reason in _REASON_OF.items():
        mine = sorted(token.value for token in only_asked if token.kind is kind)
        theirs = sorted(token.value for token in only_cached if token.kind is kind)
        if mine or theirs:
            found[reason] = Refusal(reason=reason, detail=f"{mine} and {theirs}")
    mine = sorted(token.value for token in only_asked if token.kind is Kind.WORD)
    theirs = sorted(token.value for token in only_cached if token.kind is Kind.WORD)
    if (mine or theirs) and not _are_light(mine, theirs):
        opposed = any(_are_opposed(word, other) for word in mine for other in theirs)
        reason = Reason.NEGATION if opposed else Reason.ENTITIES
        found[reason] = Refusal(reason=reason, detail=f"{mine} and {theirs}")
    return list(found.values())


def _are_light(mine: list[str], theirs: list[str]) -> bool:
    """Only one question has more words, and those say little."""
    return not (mine and theirs) and all(word in LIGHT for word in (*mine, *theirs))


def _unmatched(asked: Reading, cached: Reading) -> tuple[list[Token], list[Token]]:
    """Content of one without the other's. `wi-fi` and `wifi` match, `sign up` and `signup` too."""
    mine = [token for token in asked.bag if token not in cached.bag]
    theirs = [token for token in cached.bag if token not in asked.bag]
    if mine and theirs:
        for one, reading, other in ((mine, asked, theirs), (theirs, cached, mine)):
            _match_compounds(one, reading, other)
        _match_forms(mine, theirs)
    return mine, theirs


def _match_compounds(parts: list[Token], reading: Reading, wholes: list[Token]) -> None:
    """Take neighbouring words out of `parts`, and what they spell together out of `wholes`."""
    spelled = {token.value.replace("-", ""): token for token in wholes}
    for (_, first), (_, second) in zip(reading.content, reading.content[1:], strict=False):
        whole = spelled.get(first.value + second.value)
        if whole in wholes and (first in parts or second in parts):
            wholes.remove(whole)
            parts[:] = [token for token in parts if token not in (first, second)]


def _match_forms(mine: list[Token], theirs: list[Token]) -> None:
    """Take out verb and noun of one stem: interact and interaction, direct and director."""
    for token in list(mine):
        other = next((other for other in theirs if _are_forms(token, other)), None)
        if other is not None:
            mine.remove(token)
            theirs.remove(other)


def _are_forms(token: Token, other: Token) -> bool:
    if token.kind is not Kind.WORD or other.kind is not Kind.WORD:
        return False
    pairs = zip(token.value, other.value, strict=False)
    stem = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return stem >= 5 and {token.value[stem:], other.value[stem:]} <= FORMS


def _are_opposed(word: str, other: str) -> bool:
    """Known opposites, or one is the other with a prefix that turns it round."""
    if frozenset((word, other)) in OPPOSITE_WORDS:
        return True
    short, long = sorted((word, other), key=len)
    return len(short) > 2 and any(long == prefix + short for prefix in OPPOSING_PREFIXES)


def direction_difference(asked: Reading, cached: Reading) -> str:
    """What changed places between two questions with the same content; "" if nothing did."""
    shared = {token.value for token in asked.bag} & {token.value for token in cached.bag}
    for preposition in asked.governed.keys() & cached.governed.keys():
        mine = shared & asked.governed[preposition]
        theirs = shared & cached.governed[preposition]
        if mine - theirs and theirs - mine:
            return f"{preposition} {sorted(mine - theirs)} and {sorted(theirs - mine)}"
    before, after = _prepositions_of(asked), _prepositions_of(cached)
    for word in before.keys() & after.keys():
        for preposition in before[word] - after[word]:
            pair = OPPOSITES.get(preposition, preposition)
            if any(OPPOSITES.get(other) == pair for other in after[word] - before[word]):
                return f"{preposition} {word}"
    return _swapped(asked, cached)


def _prepositions_of(reading: Reading) -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for preposition, governed in reading.governed.items():
        for word in governed:
            found.setdefault(word, set()).add(preposition)
    return {word: frozenset(prepositions) for word, prepositions in found.items()}


def _swapped(asked: Reading, cached: Reading) -> str:
    """`X verb Y` in one and `Y verb X` in the other, none of them behind a preposition."""
    governed = set().union(*asked.governed.values(), *cached.governed.values())
    mine = [token.value for _, token in asked.content if token.value not in governed]
    theirs = [token.value for _, token in cached.content if token.value not in governed]
    triples = set(zip(theirs, theirs[1:], theirs[2:], strict=False))
    for triple in zip(mine, mine[1:], mine[2:], strict=False):
        if triple not in triples and triple[::-1] in triples:
            return f"{triple[0]} {triple[1]} {triple[2]}"
    return ""


def count_difference(asked: Reading, cached: Reading) -> str:
    """The same numbers, given to other things: 2 adults and 3 children, the other way round."""
    for word in asked.counted.keys() & cached.counted.keys():
        if asked.counted[word] != cached.counted[word]:
            return f"{asked.counted[word]} {word} and {cached.counted[word]} {word}"
    return ""


def focus_difference(asked: Reading, cached: Reading) -> str:
    """When and where, why and whether, my and your, did and will."""
    mine, theirs = asked.focus, cached.focus
    if mine != theirs:
        one_is_plain = not mine or not theirs
        plain = asked if not mine else cached
        if not one_is_plain or (mine or theirs) == "why" or plain.asks_yes_or_no:
            return f"{mine or 'whether'} and {theirs or 'whether'}"
    if asked.asks_yes_or_no and cached.asks_yes_or_no and asked.obliges != cached.obliges:
        return "may and should"
    if asked.tense and cached.tense and asked.tense != cached.tense:
        return f"{asked.tense} and {cached.tense}"
    return ""


def owner_difference(asked: Reading, cached: Reading) -> str:
    for word in asked.owners.keys() & cached.owners.keys():
        if asked.owners[word] != cached.owners[word]:
            return f"{asked.owners[word]} {word} and {cached.owners[word]} {word}"
    strangers = {"your", "his", "her", "their"}
    mine, theirs = set(asked.owners.values()), set(cached.owners.values())
    if (mine ^ theirs) & strangers:
        return f"{sorted(mine)} and {sorted(theirs)}"
    return ""
