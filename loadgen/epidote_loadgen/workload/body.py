"""This file is about the HTTP body of a request, in the shape that OpenAI's API defined."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

Message = Mapping[str, Any]


class Api(StrEnum):
    CHAT = "chat"
    COMPLETIONS = "completions"

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self is Api.CHAT else "/v1/completions"


@dataclass(frozen=True, kw_only=True)
class BodyStyle:
    """What all bodies of a class share. `extra` goes in as it is and wins over the rest."""

    model: str
    api: Api = Api.CHAT
    temperature: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def body(
        self, prompt: Sequence[Message] | str | list[int], *, max_tokens: int, exact: bool
    ) -> bytes:
        """A streamed request with usage. `exact`: the server goes on past its end token.

        `ignore_eos` and `min_tokens` are vLLM's names; OpenAI's own API refuses them.
        """
        value: dict[str, Any] = {
            "model": self.model,
            "messages" if self.api is Api.CHAT else "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": self.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if exact:
            value |= {"ignore_eos": True, "min_tokens": max_tokens}
        return msgspec.json.encode(value | dict(self.extra))


def text_part(text: str) -> Message:
    return {"type": "text", "text": text}


def image_part(data_url: str) -> Message:
    return {"type": "image_url", "image_url": {"url": data_url}}


def user_message(images: Sequence[str], text: str) -> Message:
    """Pictures first, then the words about them; words alone stay a plain string."""
    if not images:
        return {"role": "user", "content": text}
    return {"role": "user", "content": [*map(image_part, images), text_part(text)]}
