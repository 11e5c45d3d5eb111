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
    """

    def __init__(self, placeholders: Placeholders | None, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._spellings = (placeholders.image, placeholders.video) if placeholders else ()
        self._marks: dict[str, str] = {}  # mark → spelling

    def cover(self, value: Any) -> Any:
        """A copy of `value` in which no string spells a placeholder."""
        if isinstance(value, str):
            for spelling in self._spellings:
                if spelling in value:
                    mark = f"\ue000{token_hex(8)}\ue000"  # private use: in no template
                    self._marks[mark] = spelling
                    value = value.replace(spelling, mark)
            return value
        if isinstance(value, Mapping):
            return {self.cover(key): self.cover(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.cover(item) for item in value]
        return value

    def encode(self, text: str) -> list[int]:
        """Token ids of a rendered text, marks turned back."""
        if not self._marks:
            return self._tokenizer.encode(text, add_special_tokens=False)
        ids: list[int] = []
        for piece in re.split(f"({'|'.join(self._marks)})", text):
            if piece in self._marks:
                ids += self._tokenizer.encode_literally(self._marks[piece])
            elif piece:
                ids += self._tokenizer.encode(piece, add_special_tokens=False)
        return ids
