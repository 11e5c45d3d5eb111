"""This file is about what must be equal before one request may have another one's answer.

    setting   model, revision, epoch, tenant, user, salt, sampling, choices, every other field
    past      setting, all messages before the last, all their media
    context   past (or the past of the same lineage), the last message without its text, all media
    exact     setting, all messages, all media: nothing is left out but the token limit
    after     past of the follow-up question, known once there is an answer

Media are named by digests of their decoded content and processing options (`MediaSpan.key`), so
another URL or another lossless file is the same picture. Anything that is not known not to matter
is compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import Any

import msgspec

from epidote_core.sampling import SamplingParams
from epidote_gateway.answers import Job
from epidote_gateway.cache.lineage import Lineages
from epidote_gateway.cache.policy import CachePolicy, FollowUps, Personalized

FORMAT = 1  # of entries and digests; raise it when either changes its meaning
_INSTRUCTING = ("system", "developer")
_ENCODER = msgspec.json.Encoder(order="deterministic")


class Bypass(StrEnum):
    """Why a request has nothing to do with the cache."""

    DISABLED = "disabled"
    NO_STORE = "no-store"
    OPTED_OUT = "opted-out"
    TEMPERATURE = "temperature"
    TOOLS = "tools"
    PERSONALIZED = "personalized"
    CATEGORY = "category-disabled"
    UNCLASSIFIED = "category-unknown"  # and some category is disabled
    BREAK_EVEN = "below-break-even"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A request as the cache sees it. `text` is empty where only `exact` may be compared."""

    exact: bytes
    context: bytes
    text: str = field(repr=False)
    media: tuple[str, ...]
    model: str
    tenant: str
    max_tokens: int
    num_turns: int
    _setting: bytes
    _messages: tuple[Mapping[str, Any], ...] = field(repr=False)

    def after(self, answer: str) -> bytes:
        """The past of a follow-up question, if the client sends `answer` back as it got it."""
        if not self._messages:
            return b""
        said = (*self._messages, {"role": "assistant", "content": answer})
        return _past(self._setting, said, self.media)


def digest(*parts: Any) -> bytes:
    """16 bytes of blake2b; each part JSON or bytes, lengths included so that parts don't run on."""
    state = blake2b(digest_size=16, person=b"epidote-cache")
    for part in parts:
        data = part if isinstance(part, bytes) else _ENCODER.encode(part)
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.digest()


def fingerprint(
    job: Job, policy: CachePolicy, lineages: Lineages, *, revision: str = ""
) -> Asked | Bypass:
    """What `job` asks, or why it can't be cached under `policy`. `revision`: of the weights."""
    why = _bypass(job, policy)
    if why is not None:
        return why
    tenant = job.tenant if policy.tenants.isolated else ""
    setting = digest(_setting(job, policy, tenant), revision)
    media = tuple(span.key for span in job.request.media)
    messages = job.messages or ()
    turns = [message for message in messages[:-1] if message["role"] not in _INSTRUCTING]
    if not messages:
        context = digest(setting, "raw", media)
        exact = digest(context, job.request.prompt_token_ids)
        text = ""
    else:
        past = _past(setting, messages[:-1], media)
        exact = digest(setting, messages, media)
        text, frame = _last(messages[-1])
        if turns and policy.requests.follow_ups is FollowUps.OFF:
            text = ""
        if policy.requests.follow_ups is FollowUps.SAME_LINEAGE:
            past = lineages.of(past)
        context = digest(past, frame, media)
    if _offers_tools(job):
        text = ""
    return Asked(
        exact=exact,
        context=context,
        text=text,
        media=media,
        model=job.model,
        tenant=tenant,
        max_tokens=job.request.sampling.max_tokens,
        num_turns=len(turns),
        _setting=setting,
        _messages=messages,
    )


def _bypass(job: Job, policy: CachePolicy) -> Bypass | None:
    controls = job.cache.controls
    if not policy.enabled:
        return Bypass.DISABLED
    if policy.requests.controls and controls.no_store:
        return Bypass.NO_STORE
    if job.tenant in policy.tenants.opted_out:
        return Bypass.OPTED_OUT
    if job.request.sampling.temperature > policy.requests.max_temperature:
        return Bypass.TEMPERATURE
    if _offers_tools(job) and not policy.requests.tools:
        return Bypass.TOOLS
    if job.cache.user and policy.requests.personalized is Personalized.BYPASS:
        return Bypass.PERSONALIZED
    return None


def _offers_tools(job: Job) -> bool:
    fields = dict(job.cache.fields)
    return bool(fields.get("tools") or fields.get("functions"))


def _setting(job: Job, policy: CachePolicy, tenant: str) -> dict[str, Any]:
    sampling = job.request.sampling
    per_user = policy.requests.personalized is Personalized.PER_USER
    fields = dict(job.cache.fields)
    if sampling.is_greedy:
        fields.pop("seed", None)
    return {
        "format": FORMAT,
        "epoch": policy.epoch,
        "model": job.model,
        "revision": policy.model_revision,
        "tenant": tenant,
        "user": job.cache.user if per_user else "",
        "salt": job.request.cache_salt if policy.tenants.isolated else _own_salt(job),
        "sampling": _sampling(sampling),
        "choices": len(job.request.choices),
        "fields": fields,
    }


def _own_salt(job: Job) -> str:
    """The client's part of the salt, without the tenant that the gateway puts before it."""
    return job.request.cache_salt.partition("\n")[2]


def _sampling(sampling: SamplingParams) -> dict[str, Any]:
    """What decides the answer: not the limit (`Entry.fits`), not a seed that was drawn.

    A seed that the client gave is among the job's fields.
    """
    found = asdict(sampling)
    unused = ["max_tokens", "seed"]
    if sampling.is_greedy:
        unused += ["top_k", "top_p", "min_p"]
    for name in unused:
        del found[name]
    return found


def _past(setting: bytes, messages: Sequence[Mapping[str, Any]], media: Sequence[str]) -> bytes:
    """Of a conversation so far; `media` are all of the request, of which it has the first ones."""
    count = sum(
        part["type"] != "text"
        for message in messages
        if isinstance(message["content"], list)
        for part in message["content"]
    )
    return digest(setting, list(messages), list(media[:count]))


def _last(message: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(text to be compared by meaning, the message with its text taken out)."""
    content = message["content"]
    if message["role"] != "user":
        return "", dict(message)
    if isinstance(content, str):
        return content.strip(), {**message, "content": "text"}
    parts = content or ()
    texts = sum(part["type"] == "text" for part in parts)
    if 1 < texts < len(parts):  # which text belongs to which picture can't be told by meaning
        return "", dict(message)
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    kinds = [{"type": "text"} if part["type"] == "text" else part for part in parts]
    return text.strip(), {**message, "content": kinds}
