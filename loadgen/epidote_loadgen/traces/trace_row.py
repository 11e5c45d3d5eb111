"""This file is about one request of a trace, whatever format it came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceRow:
    """What a trace knows of one request. Tokens as the traced service counted them.

    `text_tokens` leaves images out where the format tells them apart, else it is the whole
    prompt. `image_tokens` has one entry an image, 0 where the size isn't known.
    `block_ids` name the prompt's prefix in blocks of `block_tokens`: equal leading ids are an
    equal leading text. `messages` is a literal conversation in OpenAI's form (own traces only).
    """

    at_s: float  # from the trace's own zero
    text_tokens: int
    output_tokens: int
    image_tokens: tuple[int, ...] = ()
    image_ids: tuple[str, ...] = ()
    block_ids: tuple[int, ...] = ()
    block_tokens: int = 0
    tenant: str = ""
    category: str = ""
    session_id: str = ""
    turn: int = 0
    messages: tuple[Mapping[str, Any], ...] = ()

    @property
    def prompt_tokens(self) -> int:
        return self.text_tokens + sum(self.image_tokens)
