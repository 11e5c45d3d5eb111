"""This file is about text and token ids, by the Rust tokenizers library alone.

transformers' AutoTokenizer gives the same ids but imports torch (5 s, 300 MB in every gateway).
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from epidote_engine.model_files import InvalidModel, read_json

_BYTE_FALLBACK_LENGTH = len("<0x00>")
_LONG_CHARS = 4096  # from here on, some ms of work: other threads must run meanwhile
_NAMED_SPECIALS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")


class TextTokenizer:
    """A model's tokenizer.json. Safe to call from several threads."""

    def __init__(self, directory: Path) -> None:
        """Load it.

        Raises:
            InvalidModel: tokenizer.json is absent or unreadable.
        """
        path = directory / "tokenizer.json"
        if not path.is_file():
            raise InvalidModel(
                f"{directory}: no tokenizer.json; save the tokenizer with transformers' "
                "save_pretrained first"
            )
        self._fast = open_tokenizer(path)
        # A second instance, since the switch is a state of the whole tokenizer: here the spelling
        # of a special token is ordinary text.
        self._literal = open_tokenizer(path)
        self._literal.encode_special_tokens = True
        self._added = {
            i: token.content for i, token in self._fast.get_added_tokens_decoder().items()
        }
        self._is_byte_level = "ByteLevel" in repr(self._fast.decoder)
        self.named_specials = _named_specials(directory)

    @property
    def size(self) -> int:
        """One more than the largest token id, added tokens included."""
        return max(self._fast.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids; the spelling of a special token becomes that token."""
        return _ids(self._fast, text, add_special_tokens)

    def encode_literally(self, text: str) -> list[int]:
        """Token ids of text in which nothing is a special token."""
        return _ids(self._literal, text, add_special_tokens=False)

    @cached_property
    def max_chars_per_token(self) -> int | None:
        """No text has fewer tokens than its characters divided by this; None: nobody can know.

        Known of byte-level vocabularies, where every byte is part of some token. What drops or
        joins characters (most normalisers, unknown tokens, specials that swallow spaces) leaves
        no bound.
        """
        normalizer = type(self._fast.normalizer).__name__
        splitting = repr(self._fast.pre_tokenizer)
        vocab = self._fast.get_vocab(with_added_tokens=False)
        added = self._fast.get_added_tokens_decoder().values()
        if (
            not self._is_byte_level
            or normalizer not in ("NoneType", "NFC")
            or "ByteLevel" not in splitting
            or "Removed" in splitting
            or not byte_alphabet().keys() <= vocab.keys()
            or any(token.lstrip or token.rstrip for token in added)
        ):
            return None
        # A stand-in character is a byte, and no character is less than one.
        longest = max(len(token) for token in (*vocab, *self._added.values()))
        # NFC joins at most three characters into two bytes (U+01D5), or four into three (U+1F82).
        return longest if normalizer == "NoneType" else 2 * longest

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Text of the ids; a byte sequence that is no UTF-8 shows as U+FFFD."""
        return str(self._fast.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def token_of(self, token_id: int) -> str | None:
        """One token's spelling in the vocabulary."""
        found = self._fast.id_to_token(token_id)
        return None if found is None else str(found)

    def token_bytes(self, token_id: int) -> bytes:
        """The exact bytes that one token stands for; may be part of a character.

        An id without a token (vocabularies are padded to round sizes) stands for nothing.
        """
        if token_id in self._added:
            return self._added[token_id].encode()
        token = self.token_of(token_id)
        if token is None:
            return b""
        if self._is_byte_level:
            alphabet = byte_alphabet()
            return b"".join(bytes([alphabet[c]]) if c in alphabet else c.encode() for c in token)
        if len(token) == _BYTE_FALLBACK_LENGTH and token.startswith("<0x") and token[-1] == ">":
            return bytes.fromhex(token[3:5])
        return token.replace("▁", " ").encode()


def _ids(tokenizer: Tokenizer, text: str, add_special_tokens: bool) -> list[int]:
    """Of long texts in a way that lets go of the interpreter: `encode` holds it to the end."""
    if len(text) < _LONG_CHARS:
        return list(tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)
    (encoding,) = tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
    return list(encoding.ids)


def open_tokenizer(path: Path) -> Tokenizer:
    """The library's own object for a tokenizer.json, without padding or truncation.

    Raises:
        InvalidModel: the file is unreadable.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise InvalidModel(f"{path}: not a readable tokenizer: {error}") from error
    # files saved after training keep that run's padding and truncation
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _named_specials(directory: Path) -> dict[str, str]:
    """bos_token, eos_token, … as chat templates may refer to them."""
    found: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        values: dict[str, Any] = read_json(directory, file)
        for name in _NAMED_SPECIALS:
            value = values.get(name)
            if isinstance(value, dict):
                value = value.get("content")
            if isinstance(value, str):
                found[name] = value
    return found


@lru_cache(maxsize=1)
def byte_alphabet() -> dict[str, int]:
    """The printable stand-ins of byte-level BPE: character → byte.

    Bytes that print stand for themselves, the others for characters from U+0100 on, in order.
    Source: GPT-2 (Radford et al. 2019).

    >>> byte_alphabet()["A"], byte_alphabet()["Ġ"]
    (65, 32)
    """
    printing = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)}
    printing |= set(range(ord("®"), ord("ÿ") + 1))
    alphabet = {chr(byte): byte for byte in printing}
    others = (byte for byte in range(256) if byte not in printing)
    alphabet.update({chr(256 + i): byte for i, byte in enumerate(others)})
    return alphabet
