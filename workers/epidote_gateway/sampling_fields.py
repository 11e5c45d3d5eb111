"""This file is about the request fields that chat and text completions share."""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from epidote_core.errors import InvalidRequest
from epidote_core.sampling import (
    MAX_REPETITION_PENALTY,
    MIN_REPETITION_PENALTY,
    MIN_TOP_P,
    SamplingParams,
)
from epidote_gateway.api_errors import ApiError, bad_field, bad_field_of
from epidote_gateway.cache.controls import CacheField

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
# every token's text is searched for each of them
StopString = Annotated[str, Meta(min_length=1, max_length=1024)]


class StreamOptions(msgspec.Struct, kw_only=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None  # vLLM: usage so far in every event


class SamplingFields(msgspec.Struct, kw_only=True):
    """OpenAI's fields, then vLLM's. Absent and null mean the same.

    Fields that nobody here knows are skipped, as vLLM does (clients send many that don't matter);
    those that would change the answer and aren't implemented are refused by `refuse_unsupported`.
    """

    model: str | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=MIN_TOP_P, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    seed: Int64 | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    safety_identifier: str | None = None  # OpenAI's successor of `user`
    # vLLM's
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: (
        Annotated[float, Meta(ge=MIN_REPETITION_PENALTY, le=MAX_REPETITION_PENALTY)] | None
    ) = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=1024)] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    return_token_ids: bool | None = None
    cache_salt: Annotated[str, Meta(max_length=256)] | None = None
    priority: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] | None = None
    cache: CacheField | None = None  # of the response cache, as LiteLLM's clients send it
    # Known, not implemented: a value that asks for something is refused, never ignored.
    best_of: Any = None
    response_format: Any = None
    structured_outputs: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    use_beam_search: Any = None
    prompt_logprobs: Any = None
    truncate_prompt_tokens: Any = None
    bad_words: Any = None
    allowed_token_ids: Any = None
    logits_processors: Any = None

    @property
    def num_choices(self) -> int:
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.continuous_usage_stats)


def _asks(value: Any) -> bool:
    return value is not None and value is not False and value != [] and value != {}


UNSUPPORTED: dict[str, Callable[[SamplingFields], bool]] = {
    "best_of": lambda r: r.best_of is not None and r.best_of != r.num_choices,
    "response_format": lambda r: _asks(r.response_format) and r.response_format != {"type": "text"},
}
_REFUSED = (
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "use_beam_search",
    "prompt_logprobs",
    "truncate_prompt_tokens",
    "bad_words",
    "allowed_token_ids",
    "logits_processors",
)


def not_supported(field: str) -> ApiError:
    return bad_field(
        field, "not supported by this server; leave it out", code="unsupported_parameter"
    )


def refuse_unsupported(request: SamplingFields, more: tuple[str, ...] = ()) -> None:
    """Raise for the first field that would change the answer in a way nobody implements."""
    for field, asks in UNSUPPORTED.items():
        if asks(request):
            raise not_supported(field)
    for field in (*_REFUSED, *more):
        if _asks(getattr(request, field)):
            raise not_supported(field)
    if request.stream_options is not None and not request.stream:
        raise bad_field("stream_options", "only allowed when stream is true")


def sampling_params(
    request: SamplingFields,
    *,
    max_tokens: int,
    logprobs: int | None,
    vocab_size: int,
    draw_seed: Callable[[], int],
) -> SamplingParams:
    """The engine's parameters; the gateway draws the seed that the client did not give."""
    stop = request.stop or ()
    try:
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=_or(request.temperature, 1.0),
            top_k=max(0, request.top_k or 0),
            top_p=_or(request.top_p, 1.0),
            min_p=_or(request.min_p, 0.0),
            presence_penalty=_or(request.presence_penalty, 0.0),
            frequency_penalty=_or(request.frequency_penalty, 0.0),
            repetition_penalty=_or(request.repetition_penalty, 1.0),
            seed=request.seed if request.seed is not None else draw_seed(),
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            stop_token_ids=tuple(request.stop_token_ids or ()),
            include_stop_str_in_output=bool(request.include_stop_str_in_output),
            ignore_eos=bool(request.ignore_eos),
            min_tokens=request.min_tokens or 0,
            logprobs=logprobs,
            logit_bias=_logit_bias(request.logit_bias or {}, vocab_size),
        )
    except InvalidRequest as error:
        raise bad_field_of(error) from error


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _logit_bias(bias: dict[str, float], vocab_size: int) -> tuple[tuple[int, float], ...]:
    pairs = []
    for key, value in bias.items():
        # Few digits, and none of them idle: ids are told once each, and int() has limits.
        known = len(key) <= len(str(vocab_size)) and key.isascii() and key.isdigit()
        if not (known and key == str(int(key)) and int(key) < vocab_size):
            wanted = f"keys must be token ids below {vocab_size}, got {key[:40]!r}"
            raise bad_field("logit_bias", wanted)
        pairs.append((int(key), value))
    return tuple(pairs)
