"""This file is about what one request says about caching, in its headers and its body.

`Cache-Control: no-cache | no-store | max-age=60` as HTTP has them, the header `x-epidote-category`,
and the field `cache` of the body, which has the same words (as LiteLLM's clients send them).
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import msgspec
from msgspec import Meta

CATEGORY_HEADER = b"x-epidote-category"

# Fields of a request that don't decide its answer, or that a fingerprint takes from elsewhere
# (the job's model, messages, sampling parameters). Every other field that is set is compared.
_ACCOUNTED = frozenset(
    {
        "model", "messages", "prompt", "n", "max_tokens", "max_completion_tokens", "temperature",
        "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "stop", "stream",
        "stream_options", "user", "safety_identifier", "top_k", "min_p", "repetition_penalty",
        "stop_token_ids", "include_stop_str_in_output", "ignore_eos", "min_tokens",
        "return_token_ids", "cache_salt", "priority", "logprobs", "top_logprobs", "cache",
    }
)  # fmt: skip


class CacheField(msgspec.Struct, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """The field `cache` of a request's body. An unknown word is an error: a misspelt `no-store`
    that is skipped would keep what must not be kept."""

    no_cache: bool | None = None
    no_store: bool | None = None
    max_age: Annotated[float, Meta(ge=0)] | None = None  # seconds
    category: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


@dataclass(frozen=True, kw_only=True)
class CacheControls:
    """What a client asks of the cache.

    `no_cache`: do not answer from it (the new answer may be kept). `no_store`: neither.
    `max_age_s`: no answer older than that. `category`: in place of the classifier's.
    """

    no_cache: bool = False
    no_store: bool = False
    max_age_s: float | None = None
    category: str = ""


NO_CONTROLS = CacheControls()


@dataclass(frozen=True, kw_only=True)
class CacheFacts:
    """What a cache must know of a request besides its prompt and sampling parameters."""

    controls: CacheControls = NO_CONTROLS
    user: str = ""  # an end user of the tenant, by OpenAI's fields: see `_end_user`
    streamed: bool = False
    fields: tuple[tuple[str, Any], ...] = field(default=(), repr=False)  # others that were set


NO_FACTS = CacheFacts()


def header_controls(cache_control: bytes, category: bytes) -> CacheControls:
    """Unknown and malformed directives are skipped, as HTTP demands; the strictest of several
    counts. Semicolons part directives too: who writes them means the same.

    >>> header_controls(b"max-age=60, no-store", b"faq")
    CacheControls(no_cache=False, no_store=True, max_age_s=60.0, category='faq')
    """
    words: set[str] = set()
    ages: list[float] = []
    for part in cache_control.decode("latin-1").lower().replace(";", ",").split(","):
        name, _, value = part.partition("=")
        word, age = name.strip(), value.strip().strip('"')
        words.add(word)
        if word == "max-age" and age.isascii() and age.isdigit():
            ages.append(float(age))
    return CacheControls(
        no_cache="no-cache" in words,
        no_store="no-store" in words,
        max_age_s=min(ages, default=None),
        category=category.decode("latin-1").strip()[:64],
    )


def cache_facts(request: msgspec.Struct, headers: CacheControls) -> CacheFacts:
    """Of a parsed body and the request's headers; where both speak, the stricter or the body's."""
    controls = headers
    said: CacheField | None = getattr(request, "cache", None)
    if said is not None:
        ages = [age for age in (said.max_age, headers.max_age_s) if age is not None]
        controls = replace(
            headers,
            no_cache=headers.no_cache or bool(said.no_cache),
            no_store=headers.no_store or bool(said.no_store),
            max_age_s=min(ages, default=None),
            category=said.category or headers.category,
        )
    return CacheFacts(
        controls=controls,
        user=_end_user(request),
        streamed=bool(getattr(request, "stream", False)),
        fields=tuple(
            (name, msgspec.to_builtins(value))
            for name in request.__struct_fields__
            if name not in _ACCOUNTED and (value := getattr(request, name)) is not None
        ),
    )


def _end_user(request: msgspec.Struct) -> str:
    """By `user` and by its successor `safety_identifier`; who sends both is told by both."""
    names = [getattr(request, name, None) for name in ("user", "safety_identifier")]
    return "\n".join(dict.fromkeys(name for name in names if name))
