"""This file is about one cached answer as the index knows it: everything but the answer itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(kw_only=True, slots=True, eq=False)
class Entry:
    """`exact`, `context` and `after` are digests, see `fingerprint`. Times are unix seconds."""

    entry_id: str
    exact: bytes
    context: bytes
    after: bytes
    category: str
    is_named: bool  # the category came with the request, not from the classifier
    tenant: str
    model: str
    text: str = field(repr=False)  # the question; empty: only compared exactly
    media: tuple[str, ...]
    embedder: str  # whose vector is stored; empty: none
    created_s: float
    saved_s: float  # what the answer took upstream
    max_tokens: int  # that were asked for
    prompt_tokens: int
    num_tokens: int  # of the longest choice
    total_tokens: int  # of all choices
    is_truncated: bool
    num_bytes: int  # answer, question and vector
    num_turns: int = 0  # of the conversation before the question, instructions left out
    own: str = ""  # category of the question itself, where the client named another one
    kept_out: str = ""  # `CachePolicy.kept_out` when its conversation was judged
    hits: int = 0
    number: int = 0  # its key in the index, of this process

    def age_s(self, now_s: float) -> float:
        return max(0.0, now_s - self.created_s)

    @property
    def categories(self) -> tuple[str, ...]:
        """All that it must satisfy: the one it is kept under, and that of its question."""
        return (self.category, self.own) if self.own else (self.category,)

    def fits(self, max_tokens: int) -> bool:
        """Whether the model would have given this answer under another token limit.

        One that ended by itself fits any limit that it doesn't reach; a truncated one only its own.
        """
        if self.is_truncated:
            return max_tokens == self.max_tokens
        return self.num_tokens <= max_tokens

    def facts(self) -> dict[str, Any]:
        """JSON for the store; `hits` start again at 0 when read back."""
        return {
            "exact": self.exact.hex(),
            "context": self.context.hex(),
            "after": self.after.hex(),
            "media": list(self.media),
            "num_turns": self.num_turns,
            "own": self.own,
            "kept_out": self.kept_out,
            **{name: getattr(self, name) for name in _PLAIN},
        }

    @classmethod
    def from_facts(cls, entry_id: str, facts: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for facts of another program or version."""
        return cls(
            entry_id=entry_id,
            exact=bytes.fromhex(facts["exact"]),
            context=bytes.fromhex(facts["context"]),
            after=bytes.fromhex(facts["after"]),
            media=tuple(facts["media"]),
            num_turns=int(facts.get("num_turns", 0)),
            own=str(facts.get("own", "")),
            kept_out=str(facts.get("kept_out", "")),
            **{name: kind(facts[name]) for name, kind in _PLAIN.items()},
        )


_PLAIN: Mapping[str, Any] = {
    "category": str,
    "is_named": bool,
    "tenant": str,
    "model": str,
    "text": str,
    "embedder": str,
    "created_s": float,
    "saved_s": float,
    "max_tokens": int,
    "prompt_tokens": int,
    "num_tokens": int,
    "total_tokens": int,
    "is_truncated": bool,
    "num_bytes": int,
}
