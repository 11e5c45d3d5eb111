"""This file is about whether a reply says what was expected."""

import unicodedata


def is_right(expected: str, reply: str) -> bool:
    """Equal but for case, spaces, and punctuation at the ends.

    Strict on purpose: "3 circles" is not "3", since "13" or "not 3" must never pass.

    >>> is_right("top left", " Top  left.")
    True
    >>> is_right("3", "13")
    False
    """
    return plain(expected) == plain(reply)


def plain(text: str) -> str:
    """What is compared."""
    words = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return words.strip(" .,;:!?\"'`*")
