"""This file is about tokens that are a value by their neighbours or their letters: plus between
numbers, BC behind a year, square before a unit, VIII."""

import re
from collections.abc import Sequence

from epidote_gateway.cache.meaning.guards.lexicon import words
from epidote_gateway.cache.meaning.guards.question_token import Kind, Token

_OPERATORS = {"plus": "+", "minus": "-", "times": "*", "×": "*"}
_ERAS = {"bc": "bc", "bce": "bc", "ad": "", "ce": ""}  # what is said of no year is AD
_OF_UNITS = words("square cubic nautical fluid")
_ROMAN = re.compile(r"(?=[IVX]{2})(X{0,3})(IX|IV|V?I{0,3})")
_LOWER_ROMAN = {"ii": 2, "iii": 3, "vii": 7, "viii": 8}  # no other words


def joined(tokens: Sequence[Token]) -> tuple[Token, ...]:
    """`tokens` with what neighbours make a value of; numbers and units are known already."""
    found: list[Token] = []
    for place, token in enumerate(tokens):
        before = found[-1] if found else None
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        if before is not None and before.kind is Kind.NUMBER:
            said = token.written.lower() if token.kind is Kind.WORD else token.value
            if said in _OPERATORS and after is not None and after.kind is Kind.NUMBER:
                token = Token(Kind.CODE, _OPERATORS[said])
            elif said in _ERAS and (token.written.isupper() or said in ("bc", "bce")):
                if _ERAS[said]:
                    found.append(Token(Kind.DATE, _ERAS[said]))
                continue
        if token.kind is Kind.UNIT and before is not None and before.value in _OF_UNITS:
            token = Token(Kind.UNIT, f"{before.value} {token.value}")
            found.pop()
        found.append(token)
    return tuple(found)


def roman_value(written: str) -> str:
    """Digits of a Roman numeral of two letters or more up to 39; "" if it is none.

    >>> [roman_value(text) for text in ("VIII", "XIV", "ii", "I", "iv", "XL", "mix")]
    ['8', '14', '2', '', '', '', '']
    """
    if written in _LOWER_ROMAN:
        return str(_LOWER_ROMAN[written])
    match = _ROMAN.fullmatch(written)
    if not match:
        return ""
    tens, ones = match.groups()
    units = {"IX": 9, "IV": 4}.get(ones, 5 * ones.count("V") + ones.count("I"))
    return str(10 * len(tens) + units)
