"""This file is about which simulated worker gets a request: the same rules for every policy."""

from epidote_core.modality import Modality
from epidote_core.roles import Role
from epidote_loadgen.simulate.config import Layout, SimConfig
from epidote_loadgen.simulate.coupled_engine import CoupledEngine
from epidote_loadgen.simulate.decode_engine import DecodeEngine
from epidote_loadgen.simulate.engines import EncodeEngine, PrefillEngine
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_loadgen.simulate.worker import SimWorker
from epidote_planner.lane import Lane


class Router:
    """Least loaded first: encode and prefill by queued tokens, decode by reserved KV.

    Requests that find no routable worker wait in `stranded` until `flush`.
    """

    def __init__(self, config: SimConfig) -> None:
        self._config = config
        self._transfer = config.profile.transfer
        self._group_of: dict[Modality, str] = {
            modality: group.name for group in config.groups for modality in group.modalities
        }
        self.open: dict[Lane, list[SimWorker]] = {}
        self.stranded: dict[Lane, list[SimRequest]] = {}

    def admit(self, request: SimRequest, now_s: float) -> None:
        """The first stage of a request that the response cache did not answer."""
        request.group = self._group_of[request.modality]
        match self._config.layout:
            case Layout.COUPLED:
                self.serve(request, now_s)
            case Layout.TWO_STAGE:
                self.prefill(request, now_s)
            case Layout.SPLIT:
                if request.encoded:
                    self.prefill(request, now_s)
                else:
                    self.encode(request, now_s)

    def encode(self, request: SimRequest, now_s: float) -> None:
        """Spread the images over the least loaded encoders, one shard each."""
        lane = Lane(request.group, Role.ENCODE)
        workers = self.open.get(lane)
        if not workers:
            self.stranded.setdefault(lane, []).append(request)
            return
        sizes = request.image_tokens
        if len(sizes) == 1:
            request.shards_left = 1
            self.add_shard(min(workers, key=_load), request, 1, sizes[0], now_s)
            return
        chosen = sorted(workers, key=_load)[: len(sizes)]
        request.shards_left = len(chosen)
        for index, worker in enumerate(chosen):
            mine = sizes[index :: len(chosen)]
            self.add_shard(worker, request, len(mine), sum(mine), now_s)

    def add_shard(
        self, worker: SimWorker, request: SimRequest, images: int, tokens: int, now_s: float
    ) -> None:
        assert isinstance(worker.engine, EncodeEngine)
        worker.engine.add(request, images, tokens, now_s)

    def reshard(self, lane: Lane, shard: tuple[SimRequest, int, int], now_s: float) -> None:
        """A shard that its encoder gave back; nothing else of the request moves."""
        workers = self.open.get(lane)
        request, images, tokens = shard
        if workers:
            self.add_shard(min(workers, key=_load), request, images, tokens, now_s)
        else:  # the last encoder left: the request starts over when one is there
            request.shards_left -= 1
            if request.shards_left == 0:
                self.stranded.setdefault(lane, []).append(request)

    def prefill(self, request: SimRequest, now_s: float) -> None:
        """Fewest queued tokens, less what the prefix cache there already holds."""
        lane = Lane(request.group, Role.PREFILL)
        workers = self.open.get(lane)
        if not workers:
            self.stranded.setdefault(lane, []).append(request)
            return
        if request.block_ids and self._config.prefix_blocks:
            best = min(workers, key=lambda w: _load(w) - _hit(w, request))
        else:
            best = min(workers, key=_load)
        assert isinstance(best.engine, PrefillEngine)
        best.engine.add(request, now_s)

    def decode(self, request: SimRequest, now_s: float) -> None:
        lane = Lane(request.group, Role.DECODE)
        workers = self.open.get(lane)
        if not workers:
            self.stranded.setdefault(lane, []).append(request)
            return
        engine = min(workers, key=_load).engine
        assert isinstance(engine, DecodeEngine)
        engine.add(request, now_s)

    def serve(self, request: SimRequest, now_s: float) -> None:
        """A worker that does everything: queued prompt tokens first, then reserved KV."""
        lane = Lane(request.group, Role.ALL)
        workers = self.open.get(lane)
        if not workers:
            self.stranded.setdefault(lane, []).append(request)
            return
        if request.block_ids and self._config.prefix_blocks:
            best = min(workers, key=lambda w: _coupled_load(w) - _hit(w, request))
        else:
            best = min(workers, key=_coupled_load)
        assert isinstance(best.engine, CoupledEngine)
        best.engine.add(request, now_s)

    def flush(self, lane: Lane, now_s: float) -> None:
        """A worker became routable: route what waited for one."""
        waiting = self.stranded.pop(lane, [])
        send = {
            Role.ENCODE: self.encode,
            Role.PREFILL: self.prefill,
            Role.DECODE: self.decode,
            Role.ALL: self.serve,
        }[lane.role]
        for request in waiting:
            send(request, now_s)


def _load(worker: SimWorker) -> float:
    engine = worker.engine
    assert engine is not None
    return engine.tokens


def _coupled_load(worker: SimWorker) -> float:
    engine = worker.engine
    assert isinstance(engine, CoupledEngine)
    return engine.tokens + 0.1 * engine.reserved  # a prompt token costs a decode step's tenth


def _hit(worker: SimWorker, request: SimRequest) -> float:
    engine = worker.engine
    assert isinstance(engine, PrefillEngine | CoupledEngine)
    return float(engine.hit_tokens(request))
