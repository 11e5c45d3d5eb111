"""This file is about the same words in other roles: who does what to whom, from where to where.

English says roles by order and by prepositions. Parts of a question may change places as a whole
(In Ohio, is it legal? Is it legal in Ohio?), words inside one part may not.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import chain, combinations

from epidote_gateway.cache.meaning.guards.clauses import STRONG
from epidote_gateway.cache.meaning.guards.comparison import verb_forms
from epidote_gateway.cache.meaning.guards.lexicon import OPPOSITES, words
from epidote_gateway.cache.meaning.guards.question_token import Kind
from epidote_gateway.cache.meaning.guards.reading import Reading

_TELLING = words(
    """
    before after above below inside outside over under behind since until against
    """
)  # say something with nothing behind them: the row above, the day before
_FREE = {Kind.DATE, Kind.UNIT}


def order_difference(asked: Reading, cached: Reading) -> str:
    """What changed places between two questions with the same content; "" if nothing did."""
    shared = {token.value for token in asked.bag} & {token.value for token in cached.bag}
    return (
        _exchanged(asked, cached, shared)
        or _other_preposition(asked, cached)
        or _other_voice(asked, cached, shared)
        or _regrouped(asked, cached)
        or _swapped(asked, cached, shared)
    )


def _exchanged(asked: Reading, cached: Reading, shared: set[str]) -> str:
    """From A to B, from B to A."""
    for preposition in asked.prepositions.governed.keys() & cached.prepositions.governed.keys():
        mine = shared & asked.prepositions.governed[preposition]
        theirs = shared & cached.prepositions.governed[preposition]
        if mine - theirs and theirs - mine:
            return f"{preposition} {sorted(mine - theirs)} and {sorted(theirs - mine)}"
    return ""


def _other_preposition(asked: Reading, cached: Reading) -> str:
    """Before it and after it, over it and on it; on it and in it may mean the same."""
    before, after = _prepositions_of(asked), _prepositions_of(cached)
    for word in before.keys() | after.keys():
        mine, theirs = before.get(word, frozenset()), after.get(word, frozenset())
        is_shared = word in asked.groups.place_of and word in cached.groups.place_of
        if is_shared and mine & STRONG != theirs & STRONG:
            return f"{sorted(mine)} and {sorted(theirs)} {word}"
        for preposition in mine - theirs:
            pair = OPPOSITES.get(preposition, preposition)
            if any(OPPOSITES.get(other) == pair for other in theirs - mine):
                return f"{preposition} {word}"
    return ""


def _prepositions_of(reading: Reading) -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    dates = {token.value for token in reading.bag if token.kind is Kind.DATE}
    for preposition, governed in reading.prepositions.heads.items():
        for word in governed:
            is_deadline = preposition == "by" and word in dates
            plain = {"into": "to", "onto": "to"}.get(preposition, preposition)
            found.setdefault(word, set()).add("deadline" if is_deadline else plain)
    return {word: frozenset(prepositions) for word, prepositions in found.items()}


def _other_voice(asked: Reading, cached: Reading, shared: set[str]) -> str:
    """Bitten by a dog and bites a dog; reports to her and she reports to."""
    for passive, active in ((asked, cached), (cached, asked)):
        for noun, verb in active.adjacent:
            is_changed = verb in passive.passives - active.passives and noun in shared
            if is_changed and passive.groups.place_of[noun] < passive.groups.place_of[verb]:
                return f"{noun} {verb} and is {verb}"
    one, other = asked.prepositions, cached.prepositions
    if (one.agents or other.agents) and (one.agents ^ other.agents) & shared:
        return f"by {sorted(one.agents)} and by {sorted(other.agents)}"
    for mine, theirs in ((one, other), (other, one)):
        for preposition in mine.stranded - theirs.stranded:
            if theirs.heads.get(preposition, frozenset()) & shared:
                return f"{preposition} {sorted(theirs.heads[preposition])}"
            is_elsewhere = preposition in theirs.heads or preposition in theirs.stranded
            if preposition in _TELLING and not is_elsewhere:
                return f"{preposition} and {sorted(theirs.stranded) or 'not'}"
            if preposition == "by":
                return "by whom"
    return ""


def _regrouped(asked: Reading, cached: Reading) -> str:
    """The cat is ill and the dog is well, the other way round."""
    if asked.bag != cached.bag:
        return ""
    mine, theirs = Counter(asked.groups.coordinates), Counter(cached.groups.coordinates)
    if mine.total() == theirs.total() > 1 and mine != theirs:
        return f"{[sorted(part) for part in mine]} and {[sorted(part) for part in theirs]}"
    one, other = Counter(asked.groups.clauses), Counter(cached.groups.clauses)
    if one.total() == other.total() > 1 and one != other:
        return f"{sorted(name for name, _ in one)} of other words"
    return ""


def _swapped(asked: Reading, cached: Reading, shared: set[str]) -> str:
    """Two words of one part in the other order."""
    one, other = asked.groups, cached.groups
    free = {t.value: t.kind for t in asked.bag if t.kind is not Kind.WORD}
    forms = verb_forms(asked, cached)
    named = {**{word: word for word in shared}, **forms}  # word of `asked` to word of `cached`
    together: dict[
        tuple[int, int], list[str]
    ] = {}  # words of one part in both, as `asked` has them
    mine, theirs = (r.prepositions.governed.get("of", frozenset()) for r in (asked, cached))
    owners = mine ^ theirs  # the height of Mount Everest, Mount Everest's height: see _exchanged
    for word in sorted(named.keys() - owners, key=lambda word: one.place_of[word]):
        if word not in one.repeated and named[word] not in other.repeated:
            segments = one.segment_of[word], other.segment_of[named[word]]
            together.setdefault(segments, []).append(word)
    for first, second in chain.from_iterable(combinations(part, 2) for part in together.values()):
        if other.place_of[named[first]] < other.place_of[named[second]]:
            continue
        kinds = {free.get(first), free.get(second)}
        if asked.commutes and cached.commutes and kinds <= {Kind.NUMBER, Kind.CODE}:
            continue  # 5 plus 3, 3 plus 5
        if len(kinds) > 1 and kinds & _FREE:
            continue  # yesterday stands anywhere, $ before or behind
        if any((w in asked.passives) != (named[w] in cached.passives) for w in (first, second)):
            continue  # increase the volume, the volume is increased
        if not _is_predicate(asked, cached, (first, second), (named[second], named[first])):
            return f"{first} {second}"
    return ""


def _is_predicate(
    asked: Reading, cached: Reading, mine: tuple[str, str], theirs: tuple[str, str]
) -> bool:
    """Which visa is the cheap one, which is the cheap visa: a verb `to be` between, or nothing.
    And `what size shoe` is `shoe size`."""
    for one, other, pair, flipped in ((asked, cached, mine, theirs), (cached, asked, theirs, mine)):
        begin, end = (one.groups.place_of[word] for word in pair)
        has_copula = any(begin < place < end for place in one.copulas)
        is_asked = pair in one.adjacent and begin in one.asked_for
        is_asked &= other.groups.place_of[flipped[0]] - 1 not in other.auxiliaries
        if (has_copula or is_asked) and flipped in other.adjacent:
            return True
    return False
