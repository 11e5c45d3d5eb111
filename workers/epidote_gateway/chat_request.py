"""This file is about the body of a chat completion request."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from epidote_gateway.api_errors import bad_field
from epidote_gateway.sampling_fields import Count, SamplingFields, refuse_unsupported

_RESERVED = {"self", "messages", "media", "tools", "add_generation_prompt"}


class TextPart(msgspec.Struct, tag="text", tag_field="type"):
    text: str


class ImageUrl(msgspec.Struct):
    url: str
    # Accepted and without effect: the model's own image processor decides the resolution.
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(msgspec.Struct, tag="image_url", tag_field="type"):
    image_url: ImageUrl | str


class Message(msgspec.Struct, kw_only=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart | ImagePart] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class ChatRequest(SamplingFields, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1, max_length=4096)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    # Known, not implemented.
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    functions: Any = None
    function_call: Any = None
    modalities: list[str] | None = None
    audio: Any = None
    web_search_options: Any = None
    chat_template: Any = None
    continue_final_message: Any = None
    mm_processor_kwargs: Any = None

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


_REFUSED = (
    "functions",
    "audio",
    "web_search_options",
    "chat_template",
    "continue_final_message",
    "mm_processor_kwargs",
)


def check(request: ChatRequest) -> None:
    """Refuse what the types can't: combinations, and fields that nobody implements."""
    refuse_unsupported(request, _REFUSED)
    if request.tools and request.tool_choice != "none":
        raise bad_field(
            "tools",
            'tool calls are not parsed by this server; leave it out or set tool_choice to "none"',
            code="unsupported_parameter",
        )
    if request.modalities and request.modalities != ["text"]:
        raise bad_field("modalities", 'must be ["text"]', code="unsupported_parameter")
    if request.top_logprobs and not request.logprobs:
        raise bad_field("top_logprobs", "only allowed when logprobs is true")
    for key in request.chat_template_kwargs or {}:
        if key in _RESERVED:
            raise bad_field(f"chat_template_kwargs.{key}", "set by the server, can't be given")
    for number, message in enumerate(request.messages):
        if message.content is None and not (message.role == "assistant" and message.tool_calls):
            raise bad_field(
                f"messages[{number}].content",
                "this field is required",
                code="missing_required_parameter",
            )


def image_urls(request: ChatRequest) -> Iterator[tuple[str, str]]:
    """(path of the field, URL) of every image, in the conversation's order."""
    for number, message in enumerate(request.messages):
        if not isinstance(message.content, list):
            continue
        for place, part in enumerate(message.content):
            if isinstance(part, ImagePart):
                path = f"messages[{number}].content[{place}].image_url"
                if isinstance(part.image_url, str):
                    yield path, part.image_url
                else:
                    yield f"{path}.url", part.image_url.url


def template_messages(request: ChatRequest) -> list[dict[str, Any]]:
    """The conversation for the chat template; `developer` is the newer name of `system`."""
    messages: list[dict[str, Any]] = []
    for message in request.messages:
        content: str | list[dict[str, str]] | None
        if isinstance(message.content, list):
            content = [
                {"type": "text", "text": part.text}
                if isinstance(part, TextPart)
                else {"type": "image"}
                for part in message.content
            ]
        else:
            content = message.content
        rendered: dict[str, Any] = {
            "role": "system" if message.role == "developer" else message.role,
            "content": content,
        }
        for field in ("name", "tool_calls", "tool_call_id"):
            if getattr(message, field) is not None:
                rendered[field] = getattr(message, field)
        messages.append(rendered)
    return messages
