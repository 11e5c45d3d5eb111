"""This file is about what makes the same numbers and dates others: at most, before, minus, first.

They count as numbers or dates, and not as scope or word order: who guards only values guards them.
"""

from collections.abc import Mapping, Sequence, Set

from epidote_gateway.cache.meaning.guards.lexicon import words
from epidote_gateway.cache.meaning.guards.question_token import Kind, Token
from epidote_gateway.cache.protocols import Reason, Refusal

_LIMITS = {
    "at least": ">=", "minimum": ">=", "min": ">=",
    "at most": "<=", "up to": "<=", "maximum": "<=", "max": "<=",
    "more than": ">", "greater than": ">", "over": ">", "above": ">", "after": ">", "since": ">",
    "less than": "<", "fewer than": "<", "under": "<", "below": "<", "before": "<", "until": "<",
}  # fmt: skip
_BETWEEN = words("the a of about on in year")  # between a limit and its number
_COMMUTING = words("+ * × plus times and or ,")
_LISTING = words("and or vs versus than from to , with")
_DIRECTED = words("difference ratio quotient subtract divide divided power range percent")
_SMALL = words("to by from and or with over into in of for on at than plus minus times the is")
_ORDINALS = frozenset({"first", "last", "next", "previous"})


def limits(tokens: Sequence[Token]) -> Mapping[Token, str]:
    """Number or date to the sign of the limit that it is: at most 20 euros, before noon."""
    found = {}
    for place, token in enumerate(tokens):
        if token.kind not in (Kind.NUMBER, Kind.DATE):
            continue
        words_before = [
            other.value
            for other in tokens[max(0, place - 4) : place]
            if other.kind is Kind.WORD and other.value not in _BETWEEN
        ]
        sign = next((_LIMITS[n] for n in _names(words_before) if n in _LIMITS), "")
        if sign:
            found[token] = sign
    return found


def _names(before: Sequence[str]) -> tuple[str, str]:
    return " ".join(before[-2:]), "".join(before[-1:])


def figures(tokens: Sequence[Token]) -> tuple[str, ...]:
    """Numbers in their order, if it matters and none of them counts things: 10 minus 4.

    Empty where what stands between them says that it does not: 5 plus 3, 5 or 3.
    """
    bare = _bare(tokens)
    return () if commutes(tokens) else tuple(tokens[place].value for place in bare)


def commutes(tokens: Sequence[Token]) -> bool:
    """Whether nothing but plus, times, and, or stands between the numbers."""
    bare = _bare(tokens)
    if not bare or any(token.value in _DIRECTED for token in tokens):
        return False
    between = {token.value for token in tokens[bare[0] : bare[-1]] if token.kind is not Kind.NUMBER}
    return between <= _COMMUTING and not {"+", "*"} <= between


def _bare(tokens: Sequence[Token]) -> list[int]:
    """Places of the numbers, if there are several and none of them counts things."""
    places = [place for place, token in enumerate(tokens) if token.kind is Kind.NUMBER]
    is_bare = len(places) > 1 and not any(_counts(tokens, place) for place in places)
    return places if is_bare else []


def _counts(tokens: Sequence[Token], place: int) -> bool:
    """Two eggs, 5 km; not `2 to the power`."""
    following = tokens[place + 1] if place + 1 < len(tokens) else None
    if following is None or following.kind not in (Kind.WORD, Kind.UNIT):
        return False
    return following.kind is Kind.UNIT or following.value not in _SMALL


def operations(tokens: Sequence[Token]) -> tuple[str, ...]:
    """Operators and calls of one expression in their order: `f(g(x))`, `a && b || c`.

    Empty where they are listed: `==` and `===`.
    """
    found = [
        place
        for place, token in enumerate(tokens)
        if token.kind is Kind.CODE and not token.value[-1].isalnum()
    ]
    if len(found) < 2:
        return ()
    inside = {token.value for token in tokens[found[0] : found[-1]]}
    return () if inside & _LISTING else tuple(tokens[place].value for place in found)


def ordinal_difference(mine: Set[str], theirs: Set[str]) -> Refusal | None:
    """First and last are numbers, last and next are dates; one that only one question has is scope.

    Arguments are the names of the questions' quantifiers.
    """
    one, other = _ORDINALS & mine, _ORDINALS & theirs
    if not (one - other and other - one):
        return None
    reason = Reason.NUMBERS if "first" in one ^ other else Reason.DATES
    return Refusal(reason=reason, detail=f"{sorted(one)} and {sorted(other)}")
