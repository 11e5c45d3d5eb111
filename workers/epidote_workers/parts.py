"""This file is about what the stages of one worker share."""

import itertools
from dataclasses import dataclass, field, replace

from epidote_core.generation import GenerateRequest
from epidote_workers.engine_thread import EngineThread
from epidote_workers.inbox import Inboxes
from epidote_workers.peers import Peers
from epidote_workers.stage_gate import StageGate
from epidote_workers.transfer.layout import KV_POOL, MEDIA_POOL
from epidote_workers.transfer.transport import LocalPool
from epidote_workers.worker_settings import WorkerSettings


@dataclass(kw_only=True)
class Parts:
    """One worker's organs. `pools` fill when the engine is made."""

    worker_id: str
    settings: WorkerSettings
    engine: EngineThread
    gate: StageGate
    inboxes: Inboxes
    peers: Peers
    computes_on_cpu: bool = True
    pools: dict[str, LocalPool] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    @property
    def kv(self) -> LocalPool:
        return self.pools[KV_POOL]

    @property
    def media(self) -> LocalPool:
        return self.pools[MEDIA_POOL]

    def own(self, request: GenerateRequest) -> GenerateRequest:
        """The request under an id of this worker's own: a client's retry may meet its first try."""
        return replace(request, request_id=f"{request.request_id}/{next(self._numbers)}")

    def owner(self, purpose: str) -> str:
        """A fresh name to hold something by."""
        return f"{purpose}/{next(self._numbers)}"
