"""This file is about what the rest of the fleet knows of one worker."""

from collections.abc import Set
from dataclasses import dataclass, field

from epidote_core.roles import Role, WorkerState


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
