"""This file is about the gateway's settings, read once from the environment."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from epidote_core.errors import EpidoteError

PREFIX = "EPIDOTE_GATEWAY_"


class InvalidSettings(EpidoteError, ValueError):
    """An environment variable that is unknown or can't be parsed; the message names it."""


def _bool(text: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in known:
        raise ValueError("must be true or false")
    return known[text.lower()]


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_keys(keys: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(tenant, key) of each `tenant:key`; a bare key is its own tenant, named after its place.

    Raises:
        ValueError: an empty one; a key is not repeated in the message.
    """
    pairs = []
    for number, part in enumerate(keys):
        tenant, colon, key = part.strip().partition(":")
        pairs.append((tenant, key) if colon else (f"key-{number}", tenant))
    if any(not tenant or not key for tenant, key in pairs):
        raise ValueError("must be `key` or `tenant:key`, neither part empty")
    return tuple(pairs)


def _keys(text: str) -> tuple[tuple[str, str], ...]:
    return parse_keys(_names(text))


def _int(text: str) -> int:
    return int(text.replace("_", ""))


def _setting(
    default: Any, parse: Callable[[str], Any], minimum: float | None = None, *, secret: bool = False
) -> Any:
    return field(default=default, metadata={"parse": parse, "min": minimum}, repr=not secret)


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """Each field is `EPIDOTE_GATEWAY_<NAME>` in the environment."""

    # Who may call. No keys: everybody may (a laptop); the admin key then also is optional.
    api_keys: tuple[tuple[str, str], ...] = _setting((), _keys, secret=True)  # tenant, key
    admin_key: str = _setting("", str, secret=True)
    isolate_tenants: bool = _setting(True, _bool)  # a cached prefix tells what others asked
    cors_origins: tuple[str, ...] = _setting((), _names)  # browser pages elsewhere; `*`: all
    # Names the model also answers to, besides the renderer's own.
    served_model_names: tuple[str, ...] = _setting((), _names)

    # Size of one request.
    max_body_bytes: int = _setting(64 << 20, _int, 1)  # bytes; a few camera pictures in base64
    body_timeout_s: float = _setting(60.0, float, 0)  # s to send it; a phone's uplink, no slowloris
    write_timeout_s: float = _setting(60.0, float, 0.001)  # s to read 64 KiB; no line is slower
    max_media_bytes: int = _setting(20 << 20, _int, 1)  # bytes, one picture as a file (OpenAI: 20)
    max_image_pixels: int = _setting(50_000_000, _int, 1)  # a phone's largest
    max_image_side_px: int = _setting(16_384, _int, 1)  # px; no model resolves longer panoramas
    max_images: int = _setting(32, _int, 0)  # per request
    max_prompt_tokens: int = _setting(0, _int, 0)  # tokens; 0: the model's length
    max_choices: int = _setting(128, _int, 1)  # n x prompts; OpenAI's bound of n
    default_max_tokens: int = _setting(0, _int, 0)  # tokens when not given; 0: what is left

    # All requests together.
    max_memory_bytes: int = _setting(2 << 30, _int, 1)  # bodies, pictures; half of a 4 GiB pod
    max_decoding_pixels: int = _setting(50_000_000, _int, 1)  # 12 bytes each: 600 MB

    max_connections: int = _setting(8192, _int, 1)  # also below what the process may open

    # Admission: beyond `max_concurrency` requests wait, beyond `max_queue` they get 429.
    max_concurrency: int = _setting(256, _int, 1)  # requests; a little above the fleet's batches
    max_queue: int = _setting(512, _int, 0)  # requests; two fleets' worth
    queue_timeout_s: float = _setting(30.0, float, 0)  # s; a person has left by then
    retry_after_s: float = _setting(1.0, float, 0)  # s; told with 429 if nobody knows better

    client_priority: bool = _setting(False, _bool)  # off: everybody would come first
    max_workers: int = _setting(1024, _int, 1)  # of /admin/scale; a slip of the finger is costly

    # Survival.
    no_worker_timeout_s: float = _setting(10.0, float, 0)  # s; outlasts a role switch, not a pod
    max_resumes: int = _setting(8, _int, 0)  # losses in a row without a token; 4x that in all
    max_deaths: int = _setting(2, _int, 1)  # workers that broke with it; then it may be the cause
    first_token_timeout_s: float = _setting(300.0, float, 0)  # s; long prompts on slow devices
    stall_timeout_s: float = _setting(60.0, float, 0)  # s without a token: the worker hangs
    admin_timeout_s: float = _setting(150.0, float, 0)  # s; several role switches with drains

    # Media.
    media_threads: int = _setting(2, _int, 1)  # decoding takes the GIL only in part
    media_cache_bytes: int = _setting(256 << 20, _int, 0)  # bytes; follow-up turns resend pictures
    fetch_urls: bool = _setting(False, _bool)  # off: fetching for strangers is a liability
    fetch_domains: tuple[str, ...] = _setting((), _names)  # if set, only these and subdomains
    fetch_private_hosts: tuple[str, ...] = _setting((), _names)  # host[:port] allowed to be private
    fetch_timeout_s: float = _setting(10.0, float, 0)  # s; all redirects together
    fetch_max_redirects: int = _setting(3, _int, 0)  # a CDN needs one or two

    # The response cache; `docs/cache.md`.
    cache_policy: str = _setting("", str)  # a file; none: there is no cache
    cache_store: str = _setting("", str)  # sqlite:PATH | redis://…; none: a file of the user's
    model_revision: str = _setting("", str)  # of the weights; answers of another are not served

    # Routing; `routing.py` says how they are weighed.
    encoder_cache_slack: int = _setting(4, _int, 0)  # media; a cached key is worth this much queue

    def __post_init__(self) -> None:
        if self.max_memory_bytes < self.max_body_bytes:
            raise InvalidSettings(
                f"{PREFIX}MAX_MEMORY_BYTES: must be at least MAX_BODY_BYTES "
                f"({self.max_body_bytes}), got {self.max_memory_bytes}"
            )
        for item in fields(self):
            minimum, value = item.metadata["min"], getattr(self, item.name)
            if minimum is not None and not value >= minimum:  # NaN fails too
                raise InvalidSettings(
                    f"{PREFIX}{item.name.upper()}: must be at least {minimum:g}, got {value!r}"
                )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "GatewaySettings":
        """Read `EPIDOTE_GATEWAY_*`.

        Raises:
            InvalidSettings: an unknown or unparsable variable; values of secrets are not shown.
        """
        environ = os.environ if environ is None else environ
        by_name = {PREFIX + item.name.upper(): item for item in fields(cls)}
        values: dict[str, Any] = {}
        for name in sorted(name for name in environ if name.startswith(PREFIX)):
            if name not in by_name:
                raise InvalidSettings(f"{name}: no such setting; known: {', '.join(by_name)}")
            item = by_name[name]
            try:
                values[item.name] = item.metadata["parse"](environ[name])
            except ValueError as error:
                shown = f", got {environ[name]!r}" if item.repr else ""
                raise InvalidSettings(f"{name}: {error}{shown}") from error
        return cls(**values)
