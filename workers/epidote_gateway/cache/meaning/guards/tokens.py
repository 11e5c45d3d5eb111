"""This file is about cutting a question into words, numbers, dates, units and pieces of code."""

import re
from dataclasses import replace
from itertools import takewhile

from epidote_gateway.cache.meaning.guards.lexicon import (
    FILLERS,
    IRREGULAR,
    NEGATIONS,
    QUANTIFIERS,
    words,
)
from epidote_gateway.cache.meaning.guards.phrases import PHRASES
from epidote_gateway.cache.meaning.guards.question_token import Kind, Token
from epidote_gateway.cache.meaning.guards.spelling import one_spelling
from epidote_gateway.cache.meaning.guards.token_pairs import joined, roman_value
from epidote_gateway.cache.meaning.guards.unit_names import UNITS
from epidote_gateway.cache.meaning.guards.unit_symbols import unit_symbol
from epidote_gateway.cache.meaning.guards.written_dates import date_value
from epidote_gateway.cache.meaning.guards.written_numbers import (
    NUMBER_WORDS,
    number_value,
    spelled_number,
)

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_MINUTES = r"(?:five|ten|twenty(?:-five)?)"
_HOUR = (
    r"(?:noon|midday|midnight|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|1[0-2]|[1-9])"
)
_DAY = r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_DATE = "|".join(
    [
        r"\d{4}-\d{1,2}-\d{1,2}",
        r"\d{1,2}[./]\d{1,2}[./]\d{2,4}",
        rf"{_DAY}(?: of)? {_MONTH}(?:,? \d{{4}}\b)?",
        rf"{_MONTH} (?:the )?{_DAY}\b(?:,? \d{{4}}\b)?",
        rf"{_MONTH},? \d{{4}}\b",
        r"\d{1,2}(?:[:.]\d{2})? ?(?:a\.m\.|p\.m\.|am\b|pm\b)",
        r"\d{1,2}:\d{2}(?::\d{2})?",
        r"\d{1,2} o'?clock",
        rf"(?:(?:a )?quarter|half|{_MINUTES}(?: minutes)?|\d{{1,2}} minutes) past {_HOUR}\b",
        rf"(?:(?:a )?quarter|half|{_MINUTES} minutes|\d{{1,2}} minutes) to {_HOUR}\b",
        rf"{_MINUTES} to (?:noon|midday|midnight)\b",
        r"(?:19|20)?\d0s\b",
        r"(?:day (?:before|after) )(?:yesterday|tomorrow)\b",
        r"(?:this|next|last|previous|coming|past) (?:week(?:end)?|month|year|quarter|summer|winter"
        r"|spring|autumn|fall|semester|season|time|night|morning|evening)\b",
        r"(?:today|tonight|tomorrow|yesterday|noon|midday|midnight)(?:'s)?\b",
        r"(?:christmas|easter|thanksgiving|halloween|new year'?s?|boxing|labou?r|independence)"
        r"(?: (?:eve|day|sunday|monday))?\b|good friday\b",
        r"(?:mon|tues?|wednes|thurs?|fri|satur|sun)days?\b",
        r"(?:january|february|april|june|july|august|september|october|november|december)\b",
        r"(?<=\bin )(?:march|may)\b|(?<=\bof )(?:march|may)\b|(?<=\bsince )(?:march|may)\b"
        r"|(?<=\buntil )(?:march|may)\b|(?<=\bby )(?:march|may)\b|(?<=\bthis )(?:march|may)\b"
        r"|(?<=\bnext )(?:march|may)\b|(?<=\blast )(?:march|may)\b",
    ]
)
_CODE = "|".join(
    [
        r"`[^`]+`",
        r"\"[^\"]+\"|“[^”]+”|'[^']+'(?!\w)",
        r"(?:https?://|www\.)\S+",
        r"[\w.+-]+@[\w-]+\.[\w.]+",
        r"(?:\.{0,2}/[\w.-]+)+/?|[A-Za-z]:\\\S+",
        r"--?[a-zA-Z][\w-]*(?:=\S+)?(?<=\w)(?<![a-z]-)",
        r"v?\d+(?:\.\d+){2,}[\w.-]*|\bv\d+(?:\.\d+)*\b",
        r"[A-Za-z]\w*(?:\.\w+){0,8}\(\)?",
        r"[A-Za-z]*\w*_\w+|[a-z]\w+(?:\.[A-Za-z]\w+){1,8}|\.[a-z]{2,5}\b|[A-Za-z]\+\+|[A-Za-z]#",
        r"[=!<>]=+|&&|\|\||=>|->|<<|>>|::|[<>]",
        r"(?<=[\d\s)])[-+*/×÷^](?=[\d\s(])",
        r"[A-Za-z]+[-.]?\d[\w.-]*\b",
    ]
)
_NUMBER = (
    r"[$€£¥₹]?(?<![\w.])-?\d{1,3}(?:,\d{3})+(?:\.\d+)?"
    r"|[$€£¥₹]?(?<![\w])-?\d+(?:[.,]\d+)?(?:e[+-]?\d{1,20}\b|/\d+)?"
)
_SCALE = r"(?: ?(?:k|m|bn|thousand|million|billion|trillion|hundred|st|nd|rd|th|x)\b)?"
_OPERATOR = "|".join(
    [
        r"(?<=[\w)])[*^×÷+](?=[\w(])|(?<![\w!])!(?=[\w(])|\[[^\]]*\]",
        r"(?<=[\w)\].])[*+](?![\w(])|(?<=[\])])\?(?=\s*\w)",  # [a-z]+, a*, B+, 18+
        r"(?<=\b[a-z])-(?!\w)|(?<=\b[a-z]{2})-(?!\w)",  # B-, AB-
        r"(?<=\d)!(?!=)|(?<=\b[nkmx])!(?!=)",  # 5!
    ]
)
_SCAN = re.compile(
    rf"(?P<date>(?<![\w.-])(?:{_DATE}))|(?P<code>(?<![\w-])(?:{_CODE}))"
    rf"|(?P<number>(?:{_NUMBER}){_SCALE})|(?P<unit>°[cf]?|%|[$€£¥₹]|(?<=\d)['′](?![^\W\d])|(?<=\d)[\"″])"
    r"|(?P<word>[^\W\d_]+(?:'[^\W\d_]+)*|\d+[^\W\d_]+)"
    rf"|(?P<operator>{_OPERATOR})|(?P<break>[,;:.?!]+)",
    re.IGNORECASE,
)
_AMBIGUOUS_UNITS = words(
    """
    l g m mi ms bar min sec secs amp gig gigs mark
    """
)
_CLOSED = frozenset({*NEGATIONS, *QUANTIFIERS, "during", "perhaps", "towards", "whereas"})
_PHRASES = tuple((re.compile(pattern, re.IGNORECASE), to) for pattern, to in PHRASES)


def tokens_of(text: str) -> tuple[Token, ...]:
    """In the text's order, phrases replaced by the words that mean the same."""
    text = text.strip().replace("’", "'").replace("‘", "'").replace("–", "-")
    for pattern, replacement in _PHRASES:
        text = pattern.sub(replacement, text)
    is_shouted = text.isupper()
    found: list[Token] = []
    for match in _SCAN.finditer(text):
        kind, raw = match.lastgroup, match.group().strip()
        if kind == "date":
            found.append(Token(Kind.DATE, date_value(raw.lower())))
        elif kind == "code":
            found += _code(raw)
        elif kind == "number":
            if raw[0] in "$€£¥₹":
                found.append(Token(Kind.UNIT, UNITS[raw[0]]))
            found += _number(raw)
        elif kind == "unit":
            found.append(Token(Kind.UNIT, UNITS[raw.lower()]))
        elif kind == "operator":
            found.append(Token(Kind.CODE, raw))
        elif kind == "break":
            found.append(Token(Kind.BREAK, raw[0]))
        else:
            is_letter = len(raw) == 1 and raw.isupper() and match.start() > 0
            is_letter &= raw != "I" or _is_numeral(found)
            is_letter &= not (found and found[-1].kind is Kind.NUMBER)  # 20 C
            found += [Token(Kind.CODE, raw)] if is_letter and not is_shouted else _word(raw)
    return joined(_with_spelled_numbers(found))


def _is_numeral(before: list[Token]) -> bool:
    """World War I, and not `am I`."""
    last = before[-1] if len(before) > 1 else None
    return last is not None and last.written[:1].isupper() and last.value not in FILLERS


def _number(raw: str) -> list[Token]:
    """`5 m` are metres and `5 M` millions, `300 K` is a temperature; of money each is a factor."""
    amount, symbol = raw.lstrip("$€£¥₹"), raw[-1:]
    if amount == raw and (symbol == "m" or raw.endswith(" K")):
        unit = "metre" if symbol == "m" else "kelvin"
        return [Token(Kind.NUMBER, number_value(amount[:-1].strip())), Token(Kind.UNIT, unit)]
    return [Token(Kind.NUMBER, number_value(amount.lower()))]


def _code(raw: str) -> list[Token]:
    """A single quoted word is a word: people quote or don't."""
    if raw[0] in "'\"“`" and raw[1:-1].isalpha() and raw[1:-1].islower():
        return _word(raw[1:-1])
    if raw[0] in "'\"“`":
        raw = raw[1:-1]
    if re.fullmatch(r"[A-Za-z]+[-.]?\d[\w.-]*", raw):  # model names: GPT-4, gpt4, mp3
        return [Token(Kind.CODE, raw.lower().replace("-", "").rstrip("."))]
    return [Token(Kind.CODE, raw.rstrip(".,;?!"))]


def _word(raw: str) -> list[Token]:
    word = raw.lower()
    if word.endswith("n't"):
        stem = {"ca": "can", "wo": "will", "sha": "shall"}.get(word[:-3], word[:-3])
        return [*_word(stem), Token(Kind.WORD, "not")]
    if "'" in word:
        stem, _, ending = raw.partition("'")
        return [*_word(stem), Token(Kind.WORD, "'" + ending.lower())] if stem else []
    glued = re.fullmatch(r"(\d+)([^\W\d_]+)", word)
    if glued:
        unit = UNITS.get(glued[2])
        number = Token(Kind.NUMBER, number_value(glued[1]))
        return [number, Token(Kind.UNIT, unit)] if unit else [Token(Kind.CODE, word)]
    numeral = roman_value(raw)
    return [Token(Kind.NUMBER, numeral)] if numeral else [Token(Kind.WORD, word, raw)]


def _with_spelled_numbers(tokens: list[Token]) -> tuple[Token, ...]:
    """Number words become numbers, and unit words units (single letters only after a number)."""
    found: list[Token] = []
    place = 0
    while place < len(tokens):
        number, used = "", 0
        if tokens[place].value in NUMBER_WORDS:
            ahead = takewhile(lambda token: token.kind is Kind.WORD, tokens[place : place + 8])
            number, used = spelled_number([token.value for token in ahead])
        if used:
            found.append(Token(Kind.NUMBER, number))
            place += used
            continue
        token = tokens[place]
        place += 1
        if token.kind is Kind.WORD:
            token = _unit_or_lemma(token, found[-1] if found else None)
        found.append(token)
    return tuple(found)


def _unit_or_lemma(token: Token, before: Token | None) -> Token:
    word = token.value
    after_number = before is not None and before.kind is Kind.NUMBER
    if after_number and word in ("c", "f"):
        return Token(Kind.UNIT, "celsius" if word == "c" else "fahrenheit")
    symbol = unit_symbol(token.written) if after_number else ""
    if symbol:
        return Token(Kind.UNIT, symbol)
    if word in UNITS and (after_number or word not in _AMBIGUOUS_UNITS):
        return Token(Kind.UNIT, UNITS[word])
    return replace(token, value=lemma(word))


def lemma(word: str) -> str:
    """The word without plural, past and gerund endings: enough to compare, not to read.

    >>> [lemma(word) for word in ("cities", "boxes", "stopped", "making", "colours", "bought")]
    ['city', 'box', 'stop', 'make', 'color', 'buy']
    """
    return one_spelling(_without_ending(word))


def _without_ending(word: str) -> str:
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word in _CLOSED or word.endswith("thing"):
        return word
    if len(word) > 4 and word.endswith("ied"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    for ending in ("ing", "ed"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= 3 and any(vowel in stem for vowel in "aeiouy"):
            is_british = stem.endswith("ell") and len(stem) > 5  # travelled
            if is_british or (stem[-1] == stem[-2] and stem[-1] not in "lsz"):
                return stem[:-1]
            return stem + "e" if _wants_e(stem) else stem
    return word


_BEFORE_E = tuple(words("ng rv at uc iz is ys yz as os rg iv dg nc bl tl"))


def _wants_e(stem: str) -> bool:
    """A short stem of vowel and consonant: mak-ing, us-ing, chang-ed."""
    if stem.endswith(_BEFORE_E):
        return not stem.endswith(("ing", "eat", "ong", "oat")) or stem == "creat"
    if (
        stem.endswith(("ir", "ur", "ad", "ag", "ut", "id", "ak", "ok", "mot", "uot"))
        and len(stem) > 3
    ):
        return stem[-3] not in "aeio"  # requir-ed, provid-ed; not repair-ed, avoid-ed
    is_vowel = [letter in "aeiou" for letter in stem[-3:]]
    return len(stem) == 3 and is_vowel == [False, True, False] and stem[-1] not in "wxy"
