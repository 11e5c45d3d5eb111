"""This file is about British and American spellings of one word, by the endings that differ."""

import re

from epidote_gateway.cache.meaning.guards.lexicon import groups, words

_OUR = words("flour scour devour detour contour velour")  # no American writes these without u
_RULES = tuple(
    (re.compile(pattern), to)
    for pattern, to in (
        (r"(?<=[a-z]{2})our(?=(?:ful|ite|hood|able|er|less)?$)", "or"),  # colour, favourite
        (r"(?<=[a-z]{3}[a-z])iz(?=(?:e|ation|er|able)$)", "is"),  # organize, organization
        (r"(?<=[a-z]{3}[ly])yz(?=e$)", "ys"),
        (r"(?<=[a-z]{2}[bt])re$", "er"),  # centre, fibre
        (r"(?<=[a-z]{3})ense$", "ence"),  # license, defense
        (r"(?<=[a-z]{4})ogue$", "og"),  # catalogue
        (r"(?<=[a-z]{3})gramme$", "gram"),
        (r"^(an|h|p|orthop)ae(?=m|st|d)", r"\1e"),  # anaemia, anaesthetic, haemoglobin, paediatric
        (r"^oe(?=s)", "e"),  # oestrogen, oesophagus
        (r"rrhoea$", "rrhea"),
    )
)
_PAIRS = groups(
    """
    gray grey
    tire tyre
    jewelry jewellery
    aluminum aluminium
    pajama pyjama
    mold mould
    plow plough
    skeptic sceptic
    skeptical sceptical
    airplane aeroplane
    donut doughnut
    yogurt yoghurt
    mustache moustache
    analyse analyze
    """
)


def one_spelling(word: str) -> str:
    """One form for both spellings of a lemma; no word that anybody has to read.

    >>> [one_spelling(word) for word in ("colour", "organize", "centre", "license", "hour", "size")]
    ['color', 'organise', 'center', 'licence', 'hour', 'size']
    """
    if word in _OUR:
        return word
    word = _PAIRS.get(word, word)
    for pattern, to in _RULES:
        word = pattern.sub(to, word)
    return word
