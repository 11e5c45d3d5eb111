"""This file is about the language of a question, from its script and its commonest words."""

import re
import unicodedata
from collections import Counter

_COMMON = {
    "en": "the is are what how do does of to in for my can i you and a which who when where why",
    "de": "der die das ist sind was wie ich du und ein eine nicht wo wer mein kann für den dem zu",
    "fr": "le la les est sont que quel quelle comment je tu vous et un une des du où qui mon ma en",
    "es": "el la los las es son qué que cómo como yo un una de en mi para por dónde cuál quién y",
    "it": "il lo la gli è sono che come io un una di del della mio mia per dove chi quale e non",
    "pt": "o a os as é são que como eu um uma de do da meu minha para onde quem qual não em e",
    "nl": "de het een is zijn wat hoe ik je en van mijn kan niet waar wie welke voor met op",
}
_WORDS = {language: frozenset(words.split()) for language, words in _COMMON.items()}
_SCRIPTS = ("CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI", "HANGUL", "HIRAGANA",
            "KATAKANA", "CJK", "THAI")  # fmt: skip
_WORD = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str:
    """A code, a script's name, or "" where there is too little to tell.

    >>> language_of("How do I reset it?"), language_of("Wie setze ich das zurück?")
    ('en', 'de')
    >>> language_of("reset password"), language_of("как сбросить пароль")
    ('', 'cyrillic')
    """
    if not text.isascii():
        scripts = [script for script in map(_script, text) if script]
        if scripts:
            japanese = {"hiragana", "katakana"} & set(scripts)
            return "japanese" if japanese else Counter(scripts).most_common(1)[0][0]
    words = _WORD.findall(text.lower())
    scores = {name: sum(word in known for word in words) for name, known in _WORDS.items()}
    first, second = sorted(scores.values(), reverse=True)[:2]
    return max(scores, key=lambda name: scores[name]) if first >= 2 and first > second else ""


def _script(character: str) -> str:
    if character.isascii() or not character.isalpha():
        return ""
    name = unicodedata.name(character, "")
    return next((script.lower() for script in _SCRIPTS if name.startswith(script)), "")
