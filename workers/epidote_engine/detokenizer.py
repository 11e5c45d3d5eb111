"""This file is about turning token ids into text as they come, never splitting a character.

Joined pieces equal the tokenizer's own decoding of all ids, whatever the ids. Each push costs
the token's own length. Two kinds of vocabulary are known by their decoder; any other is decoded
as a whole each time.
"""

import codecs
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from epidote_engine.tokenizer import byte_alphabet


class TextStream(Protocol):
    """Text of one growing list of token ids."""

    def push(self, token_id: int) -> str:
        """What became displayable by this token; maybe nothing."""
        ...

    def finish(self) -> str:
        """What is left when no more tokens come: U+FFFD for an unfinished character."""
        ...


class Vocabulary:
    """What each token id contributes to text; built once per model.

    `tokenizer` is a `tokenizers.Tokenizer`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        decoder = json.loads(tokenizer.to_str()).get("decoder") or {}
        steps = [step["type"] for step in decoder.get("decoders", [decoder]) if step]
        self._is_bytes = steps == ["ByteLevel"]
        self._is_pieces = steps in (
            ["Replace", "ByteFallback", "Fuse"],
            ["Replace", "ByteFallback", "Fuse", "Strip"],
        ) and _is_metaspace(decoder["decoders"])
        self._strips = steps[-1:] == ["Strip"]
        self._skipped = {
            i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special
        }
        self._bytes: dict[int, bytes] = {}

    def stream(self) -> TextStream:
        """A new, empty text."""
        if self._is_bytes:
            return _ByteLevelText(self)
        if self._is_pieces:
            return _PieceText(self, strip=self._strips)
        return _WholeText(self)

    def bytes_of(self, token_id: int) -> bytes:
        """Byte-level vocabularies: the bytes of a token; none for special and unknown ids."""
        found = self._bytes.get(token_id)
        if found is None:
            token = self.piece_of(token_id)
            alphabet = byte_alphabet()
            # an added token is spelled out, not in the byte alphabet
            spelled = token is None or any(char not in alphabet for char in token)
            found = (token or "").encode() if spelled else bytes(alphabet[c] for c in token or "")
            self._bytes[token_id] = found
        return found

    def piece_of(self, token_id: int) -> str | None:
        """The token as the vocabulary spells it; None for special and unknown ids."""
        token = None if token_id in self._skipped else self._tokenizer.id_to_token(token_id)
        return None if token is None else str(token)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The tokenizer's own answer for all ids at once."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))


class _ByteLevelText:
    """GPT-2's byte alphabet: tokens are bytes, text is their UTF-8."""

    __slots__ = ("_utf8", "_vocabulary")

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        return self._utf8.decode(self._vocabulary.bytes_of(token_id))

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)


class _PieceText:
    """SentencePiece: ▁ is a space, <0x..> a byte.

    A run of bytes is text only as a whole (one bad byte makes every byte of it U+FFFD), hence it
    is held until another piece ends it.
    """

    __slots__ = ("_at_start", "_run", "_vocabulary")

    def __init__(self, vocabulary: Vocabulary, *, strip: bool) -> None:
        self._vocabulary = vocabulary
        self._run = bytearray()
        self._at_start = strip

    def push(self, token_id: int) -> str:
        piece = self._vocabulary.piece_of(token_id)
        if piece is None:
            return ""
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            try:
                self._run.append(int(piece[3:5], 16))
            except ValueError:
                pass
            else:
                return ""
        return self._shown(self._take_run() + piece.replace("▁", " "))

    def finish(self) -> str:
        return self._shown(self._take_run())

    def _take_run(self) -> str:
        run, self._run = self._run, bytearray()
        try:
            return run.decode()
        except UnicodeDecodeError:
            return "\N{REPLACEMENT CHARACTER}" * len(run)

    def _shown(self, text: str) -> str:
        if self._at_start and text:
            self._at_start = False
            return text.removeprefix(" ")
        return text


class _WholeText:
    """Any other decoder: decode everything, show what can no longer change."""

    __slots__ = ("_ids", "_shown", "_vocabulary")

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._ids: list[int] = []
        self._shown = ""

    def push(self, token_id: int) -> str:
        self._ids.append(token_id)
        text = self._vocabulary.decode(self._ids)
        if text.endswith("\N{REPLACEMENT CHARACTER}") or not text.startswith(self._shown):
            return ""
        new, self._shown = text[len(self._shown) :], text
        return new

    def finish(self) -> str:
        text = self._vocabulary.decode(self._ids)
        return text[len(self._shown) :]


def load_vocabulary(directory: Path) -> Vocabulary | None:
    """The vocabulary of a model directory; None: it has no tokenizer, hence no text."""
    path = directory / "tokenizer.json"
    if not path.is_file():
        return None
    from tokenizers import Tokenizer

    return Vocabulary(Tokenizer.from_file(str(path)))


def _is_metaspace(steps: list[dict[str, Any]]) -> bool:
    replace, strip = steps[0], steps[-1]
    if replace.get("pattern") != {"String": "▁"} or replace.get("content") != " ":
        return False
    plain_strip = {"content": " ", "start": 1, "stop": 0}
    return strip["type"] != "Strip" or plain_strip.items() <= strip.items()
