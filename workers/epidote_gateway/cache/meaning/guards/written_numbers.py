"""This file is about what a written number stands for, in digits or in words."""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

_SUFFIXES = {
    "k": 10**3, "thousand": 10**3, "m": 10**6, "million": 10**6, "bn": 10**9, "billion": 10**9,
    "trillion": 10**12, "hundred": 100, "x": 1,
}  # fmt: skip
_ORDINALS = ("st", "nd", "rd", "th")
_UP_TO_NINETEEN = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    " fifteen sixteen seventeen eighteen nineteen"
)
_BY_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = {word: value for value, word in enumerate(_UP_TO_NINETEEN.split())}
_TENS = {word: 10 * value for value, word in enumerate(_BY_TENS.split(), start=2)}
_POWERS = {
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_ORDINAL_WORDS = {
    "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10,
}  # fmt: skip
_OTHERS = {"dozen": 12, "twice": 2, "double": 2, "thrice": 3, "triple": 3}

NUMBER_WORDS = frozenset({*_SMALL, *_TENS, *_ORDINAL_WORDS, *_OTHERS})


def number_value(text: str) -> str:
    """Canonical digits. Trailing zeros of a fraction stay: 3.10 is a version more often than 3.1.

    >>> [number_value(text) for text in ("1,000", "1k", "2nd", "5.0", "3.10", "3,5", "1/2", "1e3")]
    ['1000', '1000', '2th', '5', '3.10', '3.5', '1/2', '1000']
    """
    exponent = re.search(r"e[+-]?(\d+)$", text)
    if exponent and len(exponent[1]) > 3:
        return text  # digits that nobody writes out
    digits, suffix = text, ""
    for ending in sorted([*_SUFFIXES, *_ORDINALS], key=len, reverse=True):
        if text.endswith(ending) and text != ending:
            digits, suffix = text.removesuffix(ending).strip(), ending
            break
    if "/" in digits:
        return digits
    head, comma, tail = digits.rpartition(",")
    if comma and "." not in tail and len(tail) != 3:
        digits = f"{head}.{tail}"  # a decimal comma
    digits = digits.replace(",", "")
    try:
        value = Decimal(digits) * _SUFFIXES.get(suffix, 1)
    except InvalidOperation:
        return text
    shown = format(value, "f")
    if "." in shown and (suffix in _SUFFIXES or not shown.partition(".")[2].strip("0")):
        shown = shown.rstrip("0").rstrip(".")
    return f"{shown}th" if suffix in _ORDINALS else shown


def spelled_number(words: Sequence[str]) -> tuple[str, int]:
    """The number that `words` begin with, and how many of them it takes; ("", 0) if none.

    `one` alone is a pronoun more often than a number, and `second` alone stands for the unit too
    seldom to matter.

    >>> spelled_number(["two", "hundred", "and", "five", "eggs"])
    ('205', 4)
    >>> spelled_number(["one", "of", "them"]), spelled_number(["third", "man"])
    (('', 0), ('3th', 1))
    """
    if words and words[0] in _ORDINAL_WORDS:
        return f"{_ORDINAL_WORDS[words[0]]}th", 1
    if words and words[0] in _OTHERS:
        return str(_OTHERS[words[0]]), 1
    total = part = used = 0
    for place, word in enumerate(words):
        if word in _SMALL or word in _TENS:
            part += _SMALL.get(word, 0) + _TENS.get(word, 0)
        elif word in _POWERS and used:
            if word == "hundred":
                part *= 100
            else:
                total, part = total + part * _POWERS[word], 0
        elif (
            word == "and"
            and used
            and any(w in _SMALL or w in _TENS for w in words[place + 1 :][:1])
        ):
            if words[place - 1] not in _POWERS:
                break  # `two and three` are two numbers
            continue
        else:
            break
        used = place + 1
    if used == 0 or (used == 1 and words[0] == "one"):
        return "", 0
    return str(total + part), used
