"""This file is about what the rest of the fleet knows of one worker."""

from collections.abc import Set
from dataclasses import dataclass, field

from epidote_core.expert_placement import Placement
from epidote_core.roles import Role, WorkerState
from epidote_core.transfer_count import TransferCount


@dataclass(frozen=True, kw_only=True)
class WorkerLoad:
    """A worker's queues and memory at one moment. All counts are of this worker alone."""

    num_waiting: int = 0  # requests not yet scheduled
    num_running: int = 0  # sequences in the batch
    num_encoding: int = 0  # media queued or being encoded
    queued_prefill_tokens: int = 0
    num_kv_blocks: int = 0
    num_free_kv_blocks: int = 0  # free or evictable
    num_media_rows: int = 0
    num_free_media_rows: int = 0
    num_preemptions: int = 0  # since start
    prefix_hit_tokens: int = 0  # since start
    prefix_query_tokens: int = 0  # since start
    ttft_s: float = 0.0  # mean over the last minute; 0: none seen
    tpot_s: float = 0.0
    # since start, from and to other workers; one for each transport, kind and direction
    transfers: tuple[TransferCount, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ExpertsView:
    """Where the experts of a worker lie that holds whole ones in slots, and where they shall.

    While they move, `placement` is what requests are computed with, in part the new one.
    """

    ranks: int
    placement: Placement = field(repr=False)
    digest: str  # `placement_digest` of it
    target: str = ""  # digest of the placement that the worker was told; "": none
    refusal: str = ""  # why the engine won't have that one
    num_moves: int = 0  # placements that came into force since the start
    slot_s: float = 0.0  # seconds that each slot of the last move took; 0: none yet

    @property
    def is_moving(self) -> bool:
        """Whether it was told of a placement that is not in force: refused ones count."""
        return self.target not in ("", self.digest)


@dataclass(frozen=True, kw_only=True)
class WorkerView:
    """One worker as the router and the control plane see it.

    `media_keys` and `block_hashes` say what the worker could reuse. They lag by one
    report, so they may only be used to choose, never to skip work. There may be hundreds of
    thousands, ten reports a second: whoever follows a worker hands out the sets that it goes on
    changing. Look things up in them between two awaits; copy what must stay as it is.
    """

    worker_id: str
    role: Role
    state: WorkerState
    epoch: int  # grows by one with every role switch
    address: str  # "unix:/path" or "tcp:host:port"
    node_id: str = ""
    pid: int = 0
    load: WorkerLoad = WorkerLoad()
    media_keys: Set[str] = field(default=frozenset(), repr=False)
    block_hashes: Set[bytes] = field(default=frozenset(), repr=False)
    # [layer][expert] tokens computed since the weights were loaded; () without experts
    expert_tokens: tuple[tuple[int, ...], ...] = field(default=(), repr=False)
    experts: ExpertsView | None = None  # None: its ranks share every expert, or it has none
