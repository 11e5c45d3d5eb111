"""This file is about the bodies of /tokenize and /detokenize, in vLLM's shape."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from epidote_gateway.chat_request import Message
from epidote_gateway.sampling_fields import TokenId


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """Either `prompt`, or `messages` (without images) under the chat template."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Meta(min_length=1, max_length=4096)] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool | None = None


class TokenizeResponse(msgspec.Struct, kw_only=True):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    tokens: list[TokenId]
    model: str | None = None


class DetokenizeResponse(msgspec.Struct, kw_only=True):
    prompt: str
