"""This file is about two readings: what one has that the other lacks, or says in another way."""

from itertools import takewhile

from epidote_gateway.cache.meaning.guards.grammar import STRANGERS
from epidote_gateway.cache.meaning.guards.lexicon import (
    FORMS,
    LIGHT,
    OPPOSING_PREFIXES,
    OPPOSITE_WORDS,
)
from epidote_gateway.cache.meaning.guards.question_token import Kind, Token
from epidote_gateway.cache.meaning.guards.reading import Reading
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


def verb_forms(asked: Reading, cached: Reading) -> dict[str, str]:
    """Words of `asked` to those of `cached` that no rule gave the same form: invad(ed), invade."""
    mine = [token.value for token in asked.bag if token not in cached.bag]
    theirs = [token.value for token in cached.bag if token not in asked.bag]
    return {word: other for word in mine for other in theirs if other in (word + "e", word[:-1])}


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


def count_difference(asked: Reading, cached: Reading) -> str:
    """The same numbers, given to other things: 2 adults and 3 children, the other way round."""
    for word in asked.counted.keys() & cached.counted.keys():
        if asked.counted[word] != cached.counted[word]:
            return f"{asked.counted[word]} {word} and {cached.counted[word]} {word}"
    return ""


def limit_difference(asked: Reading, cached: Reading, kind: Kind) -> str:
    """The same number or date (`kind`) as another limit: at least 5, at most 5."""
    for token in asked.bag.keys() & cached.bag.keys():
        one, other = asked.limits.get(token, "="), cached.limits.get(token, "=")
        if token.kind is kind and one != other:
            return f"{one} {token.value} and {other} {token.value}"
    return ""


def figure_difference(asked: Reading, cached: Reading) -> str:
    """The same numbers in another order, where that matters: 10 minus 4, 4 minus 10."""
    mine, theirs = asked.figures, cached.figures
    return f"{mine} and {theirs}" if mine != theirs and sorted(mine) == sorted(theirs) else ""


def operation_difference(asked: Reading, cached: Reading) -> str:
    """The same operators and calls in another order: f(g(x)), g(f(x))."""
    mine, theirs = asked.operations, cached.operations
    return f"{mine} and {theirs}" if mine != theirs and sorted(mine) == sorted(theirs) else ""


def plural_difference(asked: Reading, cached: Reading) -> str:
    """Her brother and her brothers, which one and which ones."""
    shared = asked.plurals.keys() & cached.plurals.keys()
    changed = sorted(word for word in shared if asked.plurals[word] != cached.plurals[word])
    return f"one {changed[0]} or several" if changed else ""


def case_difference(asked: Reading, cached: Reading) -> str:
    """The same word as a name in one and not in the other."""
    for word in asked.cases.keys() & cached.cases.keys():
        if asked.cases[word] != cached.cases[word]:
            return f"{word}: {asked.cases[word]} and {cached.cases[word]}"
    return ""


def scope_difference(asked: Reading, cached: Reading) -> str:
    """The same `only` or `all`, about something else."""
    for name in asked.scopes.keys() & cached.scopes.keys():
        mine, theirs = asked.scopes[name], cached.scopes[name]
        owners = _owned(asked) | _owned(cached)
        one, other = (mine - theirs).keys() - owners, (theirs - mine).keys() - owners
        if one and other:  # all office costs, all costs of the office
            return f"{name} {sorted(mine)} and {name} {sorted(theirs)}"
    return ""


def _owned(reading: Reading) -> frozenset[str]:
    return reading.prepositions.governed.get("of", frozenset())


def negation_difference(asked: Reading, cached: Reading) -> str:
    """As many negations, and each about the same thing."""
    if asked.negations != cached.negations:
        return f"{asked.negations} and {cached.negations} negations"
    left = list(cached.negated)
    for about in asked.negated:
        partner = next((other for other in left if about & other or about == other), None)
        if partner is None:
            return f"not {sorted(about)} and not {[sorted(other) for other in left]}"
        left.remove(partner)
    return ""


def focus_difference(asked: Reading, cached: Reading) -> str:
    """When and where, why and whether, may and should."""
    mine, theirs = asked.focus, cached.focus
    if mine != theirs:
        one_is_plain = not mine or not theirs
        plain = asked if not mine else cached
        if not one_is_plain or (mine or theirs) == "why" or plain.asks_yes_or_no:
            return f"{mine or 'whether'} and {theirs or 'whether'}"
    both_yes_or_no = asked.asks_yes_or_no and cached.asks_yes_or_no
    may, must = asked.modality, cached.modality
    if both_yes_or_no and may != must and {may, must} & {"must", "should"}:
        return f"{may or 'may'} and {must or 'may'}"
    if may and must and may != must:
        is_advice = "first" in asked.persons and "must" not in (may, must)
        if {may, must} != {"must", "should"} and not (is_advice or asked.asks_how):
            return f"{may} and {must}"
    if (both_yes_or_no or (mine and mine == theirs)) and "should" not in (
        asked.modality,
        cached.modality,
    ):
        one, other = asked.main_verbs, cached.main_verbs
        if one and other and not one & other:
            return f"{sorted(one)} and {sorted(other)}"
    return ""


def tense_difference(asked: Reading, cached: Reading) -> str:
    """Is and was, did and will; a date says the future as well as a verb does.

    Who directed it and who is its director ask the same: the verb is no word of the other question.
    """
    mine, theirs = asked.tense, cached.tense
    if mine and theirs:
        has_date = any(token.kind is Kind.DATE for token in asked.bag)
        is_dated = has_date and {mine, theirs} == {"present", "future"}
        return "" if mine == theirs or is_dated else f"{mine} and {theirs}"
    if not mine and not theirs:
        shared = {t.value: t.value for t in asked.bag if t in cached.bag}
        shared |= verb_forms(asked, cached)
        changed = [a for a, b in shared.items() if (a in asked.past) != (b in cached.past)]
        return f"another tense of {sorted(changed)}" if changed else ""
    told, other = (asked, cached) if mine else (cached, asked)
    if told.tense == "past" or not other.past:
        return ""
    doers = ("er", "or", "ers", "ors")
    verbs = {t.value for _, t in told.content if not t.written.lower().endswith(doers)}
    changed_verbs = verbs & other.past - told.past
    return f"{told.tense} and past" if changed_verbs else ""


def person_difference(asked: Reading, cached: Reading) -> str:
    """Whose it is, and who does it to whom. Who asks need not be named: I, we and nobody agree."""
    for word in asked.owners.keys() & cached.owners.keys():
        if asked.owners[word] != cached.owners[word]:
            return f"{asked.owners[word]} {word} and {cached.owners[word]} {word}"
    if asked.asker and cached.asker and asked.asker != cached.asker:
        return f"{asked.asker} and {cached.asker}"
    strangers = {"your", "his", "her"}
    mine, theirs = set(asked.owners.values()), set(cached.owners.values())
    if (mine ^ theirs) & strangers:
        return f"{sorted(mine)} and {sorted(theirs)}"
    one, other = set(asked.persons), set(cached.persons)
    changed = (asked.passives ^ cached.passives) & {token.value for token in asked.bag}
    if changed & {token.value for token in cached.bag} and one & other & {"first", *STRANGERS}:
        return f"{sorted(changed)} by and of {sorted(one & other)}"
    is_service = {asked.persons, cached.persons} == {(), ("second",)}  # Do you allow pets?
    if (one ^ other) & STRANGERS and not is_service:
        return f"{asked.persons} and {cached.persons}"
    if one == other and len(one) > 1 and asked.persons != cached.persons:
        return f"{asked.persons} and {cached.persons}"
    return ""
