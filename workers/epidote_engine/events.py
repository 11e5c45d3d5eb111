"""This file is about what an engine tells its owner: events, and the values in them."""

from dataclasses import dataclass
from enum import StrEnum

from epidote_core.generation import StageTiming, TokenChunk, TokenLogprob


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstToken:
    """The one token that a prefill worker samples for a sequence which decodes elsewhere."""

    token_id: int
    logprob: TokenLogprob | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TokensOut:
    """New tokens of a request, one chunk per choice that moved on."""

    request_id: str
    chunks: tuple[TokenChunk, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefillDone:
    """Mode.PREFILL: the first token is sampled; the blocks stay until `release_kv` or `abort`."""

    request_id: str
    first: FirstToken
    num_cached_tokens: int
    timing: StageTiming


@dataclass(frozen=True, kw_only=True, slots=True)
class KvReserved:
    """Mode.DECODE: room for the prompt; its first `num_cached_tokens` are in place already.

    `block_ids` covers ceil(num_tokens / block_size) blocks. The blocks that hold the cached tokens
    may be shared with other sequences and must not be written.
    """

    request_id: str
    block_ids: tuple[int, ...]
    num_cached_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaReady:
    """The embedding of `key` is in the media pool."""

    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaFailed:
    """The medium can't be encoded; requests that wait for it have failed as well."""

    key: str
    message: str


class Fault(StrEnum):
    """Why a request failed, which is what decides whether it is worth another attempt."""

    REQUEST = "request"  # what it asks for can't be done: the client's to mend
    COMPUTE = "compute"  # it can't be computed, here or elsewhere
    STEP = "step"  # it was one of several in a step that broke: elsewhere it may go well


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestFailed:
    """The whole request ends here with an error; everything it held is free."""

    request_id: str
    message: str
    fault: Fault = Fault.REQUEST


Event = TokensOut | PrefillDone | KvReserved | MediaReady | MediaFailed | RequestFailed


@dataclass(frozen=True, kw_only=True, slots=True)
class KvReady:
    """Layers [first_layer, end_layer) of tokens [start_token, end_token) are in the KV pool.

    `block_ids` are all of the prompt's blocks: token t lies in block `block_ids[t // block_size]`.
    """

    request_id: str
    block_ids: tuple[int, ...]
    start_token: int
    end_token: int
    first_layer: int
    end_layer: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaRows:
    """Where a medium's embedding lies in the media pool: rows in order, as few ranges as fit.

    `ready` tells that the rows are filled already: there is nothing to copy or commit.
    """

    key: str
    rows: tuple[range, ...]
    ready: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheChanges:
    """What became reusable and what ceased to be since the last look; no name is in both."""

    blocks_added: frozenset[bytes] = frozenset()
    blocks_removed: frozenset[bytes] = frozenset()
    media_added: frozenset[str] = frozenset()
    media_removed: frozenset[str] = frozenset()
