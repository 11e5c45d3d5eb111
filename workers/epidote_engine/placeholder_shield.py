"""This file is about clients who write a placeholder's spelling: it must stay text."""

import re
from collections.abc import Mapping
from secrets import token_hex
from typing import Any

from epidote_engine.placeholders import Placeholders
from epidote_engine.tokenizer import TextTokenizer


class PlaceholderShield:
    """Keeps placeholder spellings inside one request's own text from being read as placeholders.

    They are swapped for a random mark while the template runs, and tokenised as plain text.
    Values must not be nested deeply (`epidote_core.nesting`).
    """

    def __init__(self, placeholders: Placeholders | None, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        spellings = (placeholders.image, placeholders.video) if placeholders else ()
        # One mark a spelling, however many strings have it: patterns and texts stay short.
        # Random, so that nobody can write it; of the private use area: in no template.
        self._marks = {f"\ue000{token_hex(8)}\ue000": spelling for spelling in spellings}
        self._is_used = False

    def cover(self, value: Any) -> Any:
        """A copy of `value` in which no string spells a placeholder."""
        if isinstance(value, str):
            for mark, spelling in self._marks.items():
                if spelling in value:
                    self._is_used = True
                    value = value.replace(spelling, mark)
            return value
        if isinstance(value, Mapping):
            return {self.cover(key): self.cover(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.cover(item) for item in value]
        return value

    def num_chars(self, text: str) -> int:
        """Characters of a rendered text with the spellings back in their places."""
        longer = (
            text.count(mark) * (len(mark) - len(spelling)) for mark, spelling in self._marks.items()
        )
        return len(text) - sum(longer)

    def encode(self, text: str) -> list[int]:
        """Token ids of a rendered text, marks turned back."""
        if not self._is_used:
            return self._tokenizer.encode(text, add_special_tokens=False)
        literal = {
            mark: self._tokenizer.encode_literally(spelling)
            for mark, spelling in self._marks.items()
        }
        ids: list[int] = []
        for piece in re.split(f"({'|'.join(self._marks)})", text):
            if piece in literal:
                ids += literal[piece]
            elif piece:
                ids += self._tokenizer.encode(piece, add_special_tokens=False)
        return ids
