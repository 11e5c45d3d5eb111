"""This file is about the body of a text completion request."""

from typing import Annotated, Any

from msgspec import Meta

from epidote_gateway.api_errors import bad_field
from epidote_gateway.sampling_fields import SamplingFields, TokenId, refuse_unsupported

Prompt = str | list[int]


class CompletionRequest(SamplingFields, kw_only=True):
    # text | texts | token ids | lists of token ids; `prompts` refuses mixtures
    prompt: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    suffix: Any = None
    prompt_embeds: Any = None


def check(request: CompletionRequest) -> None:
    """Refuse combinations and fields that nobody implements."""
    refuse_unsupported(request, ("suffix", "prompt_embeds"))
    if request.echo and request.logprobs is not None:
        raise bad_field(
            "echo", "can't be combined with logprobs here", code="unsupported_parameter"
        )


def prompts(request: CompletionRequest) -> list[tuple[str, Prompt]]:
    """(path of the field, prompt) for each prompt."""
    given = request.prompt
    if isinstance(given, str):
        return [("prompt", given)]
    if all(isinstance(item, int) for item in given):
        return [("prompt", [item for item in given if isinstance(item, int)])]
    wanted = str if isinstance(given[0], str) else list
    found: list[tuple[str, Prompt]] = []
    for number, item in enumerate(given):
        if isinstance(item, int) or not isinstance(item, wanted):
            raise bad_field("prompt", "must not mix texts, token ids and lists of token ids")
        found.append((f"prompt[{number}]", item))
    return found
