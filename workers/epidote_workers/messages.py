"""This file is about what workers and their clients say to each other: methods and their types.

Every method that lends something (KV blocks, embedding rows) is a stream, and the loan is the
stream: it ends when the borrower closes the stream, when its connection breaks, or at a deadline.
"""

from dataclasses import dataclass, field

from epidote_core.expert_placement import Placement
from epidote_core.generation import (
    GenerateRequest,
    MediaPixels,
    Route,
    StageTiming,
    TokenChunk,
    TokenLogprob,
)
from epidote_core.roles import Role, WorkerState
from epidote_core.transfer_count import TransferCount
from epidote_core.worker_view import ExpertsView, WorkerLoad
from epidote_gateway.backend import SwitchOutcome
from epidote_workers.lifecycle import DrainPolicy
from epidote_workers.rpc.frames import Method
from epidote_workers.transfer.layout import PoolLayout


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """No arguments, or no answer but that it is done."""


@dataclass(frozen=True, kw_only=True)
class GenerateCall:
    """`addresses` of every worker on the route."""

    request: GenerateRequest
    route: Route
    addresses: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class PrefillCall:
    """`addresses` as in `GenerateCall`; `encode` maps media keys to their encoders."""

    request: GenerateRequest
    encode: tuple[tuple[str, str], ...]
    addresses: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class KvSpan:
    """Layers [first_layer, end_layer) of tokens [start_token, end_token) may be copied.

    `block_ids` are the prompt's blocks in the prefill worker's pool; None: as in the span before.
    Tokens before `start_token` are ready in all layers.
    """

    start_token: int
    end_token: int
    first_layer: int
    end_layer: int
    block_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class PrefillResult:
    """All KV may be copied; it stays until the stream is closed."""

    token_id: int
    logprob: TokenLogprob | None
    num_cached_tokens: int
    timings: tuple[StageTiming, ...]


@dataclass(frozen=True, kw_only=True)
class PrefillItem:
    """Spans that became ready and, in the last item, the result."""

    spans: tuple[KvSpan, ...] = ()
    result: PrefillResult | None = None


@dataclass(frozen=True, kw_only=True)
class EncodeCall:
    pixels: MediaPixels
    request_id: str


@dataclass(frozen=True, kw_only=True)
class FetchMediaCall:
    """Wait until `key` is encoded, at most `timeout_s`, then lend its rows."""

    key: str
    timeout_s: float


@dataclass(frozen=True, kw_only=True)
class LentMedia:
    """Rows of the media pool as (start, stop) ranges, in order."""

    rows: tuple[tuple[int, int], ...]
    timing: StageTiming


@dataclass(frozen=True, kw_only=True)
class Pools:
    """How to reach a worker's pools. `descriptor_path` is empty where none can be passed."""

    node_id: str
    descriptor_path: str
    layouts: tuple[PoolLayout, ...]
    ray: bool  # whether it can put objects into Ray's store
    cuda_handles: tuple[tuple[str, str], ...] = ()  # (pool, handle) of pools in GPU memory
    nixl_handles: tuple[tuple[str, str], ...] = ()  # (pool, handle) where NIXL may be used
    kv_scales: tuple[tuple[float, ...], ...] = ()  # what KV codes count for, by rank


@dataclass(frozen=True, kw_only=True)
class ReadCall:
    """Pack units of a pool for a peer that can't map it."""

    pool: str
    first_layer: int
    end_layer: int
    units: tuple[int, ...]
    ray: bool
    codes: str = ""  # "int8", "fp8": quantised on the way; "": as they are


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Packed units: the bytes, or a ticket for an object in Ray's store."""

    data: bytes = field(default=b"", repr=False)
    ticket: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, kw_only=True)
class TakenCall:
    """What the caller copied from this worker's pools since it last said so, as it counted it."""

    counts: tuple[TransferCount, ...]


@dataclass(frozen=True, kw_only=True)
class StatusReport:
    """A worker's state now. `is_whole`: the sets are everything, else what was added.

    Removed names come before added ones: a name in both is there. `expert_tokens`: () as before.
    `experts`: None as before, too; a worker's experts keep their slots through every role.
    """

    worker_id: str
    role: Role
    state: WorkerState
    epoch: int
    node_id: str
    pid: int
    block_size: int
    load: WorkerLoad
    is_whole: bool = False
    blocks_added: frozenset[bytes] = frozenset()
    blocks_removed: frozenset[bytes] = frozenset()
    media_added: frozenset[str] = frozenset()
    media_removed: frozenset[str] = frozenset()
    expert_tokens: tuple[tuple[int, ...], ...] = ()
    experts: ExpertsView | None = None


@dataclass(frozen=True, kw_only=True)
class SwitchCall:
    """`expected_epoch` None: whatever it is; another epoch than the worker's is refused."""

    role: Role
    deadline_s: float
    drain: DrainPolicy = DrainPolicy.MIGRATE
    grace_s: float = 0.25
    expected_epoch: int | None = None


@dataclass(frozen=True, kw_only=True)
class PlaceCall:
    """Experts shall lie like this: begun when answered, in force when the status says so."""

    placement: Placement


@dataclass(frozen=True, kw_only=True)
class DrainCall:
    deadline_s: float
    grace_s: float = 0.25


@dataclass(frozen=True, kw_only=True)
class RetireCall:
    """Leave the fleet for good: others take over the stage, then drain, `deadline_s` at most."""

    deadline_s: float


@dataclass(frozen=True, kw_only=True)
class Conservation:
    """Everything that the bookkeeping finds wrong, [] when sound; `is_idle`: nothing is at work."""

    errors: tuple[str, ...]
    is_idle: bool


GENERATE: Method[GenerateCall, list[TokenChunk]] = Method(
    "generate", GenerateCall, list[TokenChunk]
)
PREFILL: Method[PrefillCall, PrefillItem] = Method("prefill", PrefillCall, PrefillItem)
ENCODE: Method[EncodeCall, Nothing] = Method("encode", EncodeCall, Nothing)
FETCH_MEDIA: Method[FetchMediaCall, LentMedia] = Method("fetch_media", FetchMediaCall, LentMedia)
POOLS: Method[Nothing, Pools] = Method("pools", Nothing, Pools)
READ: Method[ReadCall, Packed] = Method("read", ReadCall, Packed)
TAKEN: Method[TakenCall, Nothing] = Method("taken", TakenCall, Nothing)
STATUS: Method[Nothing, StatusReport] = Method("status", Nothing, StatusReport)
SWITCH_ROLE: Method[SwitchCall, SwitchOutcome] = Method("switch_role", SwitchCall, SwitchOutcome)
PLACE_EXPERTS: Method[PlaceCall, Nothing] = Method("place_experts", PlaceCall, Nothing)
DRAIN: Method[DrainCall, Nothing] = Method("drain", DrainCall, Nothing)
RETIRE: Method[RetireCall, Nothing] = Method("retire", RetireCall, Nothing)
CONSERVATION: Method[Nothing, Conservation] = Method("conservation", Nothing, Conservation)
