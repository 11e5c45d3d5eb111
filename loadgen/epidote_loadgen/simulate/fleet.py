"""This file is about the simulated pool: starts, switches, drains, removals, and their cost."""

from collections.abc import Mapping

from epidote_core.roles import Role, WorkerState
from epidote_loadgen.simulate.config import Layout, SimConfig
from epidote_loadgen.simulate.coupled_engine import CoupledEngine
from epidote_loadgen.simulate.decode_engine import DecodeEngine
from epidote_loadgen.simulate.engines import Done, EncodeEngine, PrefillEngine
from epidote_loadgen.simulate.events import Events
from epidote_loadgen.simulate.prefix_cache import PrefixCache
from epidote_loadgen.simulate.router import Router
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_loadgen.simulate.worker import Engine, SimWorker
from epidote_planner.lane import Lane

DRAIN_POLL_S = 0.25  # how often a draining worker is looked at


class Fleet:
    """Owns the workers. A GPU is paid from the request for its worker until it is gone."""

    def __init__(
        self,
        config: SimConfig,
        events: Events,
        router: Router,
        *,
        encoded: Done,
        prefilled: Done,
        first_token: Done,
        finished: Done,
    ) -> None:
        self._config = config
        self._events = events
        self._router = router
        self._encoded = encoded
        self._prefilled = prefilled
        self._first_token = first_token
        self._finished = finished
        self._count = 0
        self._broken_starts = config.failed_starts
        self._gone_gpu_s = 0.0
        self.workers: dict[str, SimWorker] = {}
        self.num_switches = 0
        self.num_starts = 0
        self.num_removals = 0
        self.stretch = 1.0

    def populate(self, initial: Mapping[Lane, int]) -> None:
        """The fleet at the start, routable at once."""
        for lane, count in initial.items():
            for _ in range(count):
                self._open(self._new(lane, 0.0), 0.0)

    def gpu_seconds(self, now_s: float) -> float:
        return self._gone_gpu_s + sum(now_s - w.created_s for w in self.workers.values())

    def count(self) -> dict[Lane, int]:
        """Workers by lane, in whatever state, without those that leave."""
        counts: dict[Lane, int] = {}
        for worker in self.workers.values():
            if not worker.leaving:
                lane = worker.next_lane or worker.lane
                counts[lane] = counts.get(lane, 0) + 1
        return counts

    def add(self, lane: Lane, count: int, now_s: float) -> None:
        for _ in range(count):
            worker = self._new(lane, now_s)
            self.num_starts += 1
            if self._broken_starts > 0:
                self._broken_starts -= 1
            else:
                ready_s = now_s + self._config.profile.startup_s
                self._events.at(ready_s, self._started, worker)

    def switch(self, name: str, target: Lane, now_s: float) -> None:
        worker = self.workers.get(name)
        if worker is None or worker.leaving or worker.next_lane is not None:
            return
        if worker.lane == target:
            return
        if worker.state is WorkerState.STARTING:  # no weights of a role are loaded yet
            worker.lane = target
            return
        self.num_switches += 1
        worker.next_lane = target
        self._drain(worker, now_s)

    def remove(self, name: str, now_s: float) -> None:
        worker = self.workers.get(name)
        if worker is None or worker.leaving:
            return
        self.num_removals += 1
        worker.leaving = True
        worker.next_lane = None
        if worker.state is WorkerState.STARTING:
            self._delete(worker, now_s)
        elif worker.state is WorkerState.ROUTABLE:
            self._drain(worker, now_s)

    def set_stretch(self, factor: float, now_s: float) -> None:
        """Expert skew: every decode step takes `factor` times as long."""
        self.stretch = factor
        for worker in self.workers.values():
            if isinstance(worker.engine, DecodeEngine):
                worker.engine.stretch(factor, now_s)

    def _new(self, lane: Lane, now_s: float) -> SimWorker:
        self._count += 1
        worker = SimWorker(f"w{self._count:05d}", lane, now_s)
        self.workers[worker.name] = worker
        return worker

    def _started(self, now_s: float, worker: SimWorker) -> None:
        if worker.name in self.workers and worker.state is WorkerState.STARTING:
            self._open(worker, now_s)

    def _open(self, worker: SimWorker, now_s: float) -> None:
        worker.engine = self._engine(worker.role)
        worker.state = WorkerState.ROUTABLE
        worker.since_s = now_s
        self._router.open.setdefault(worker.lane, []).append(worker)
        self._router.flush(worker.lane, now_s)

    def _engine(self, role: Role) -> Engine:
        config, profile, events = self._config, self._config.profile, self._events
        prefix = None
        if config.prefix_blocks and role in (Role.PREFILL, Role.ALL):
            prefix = PrefixCache(
                capacity_blocks=config.prefix_blocks, block_tokens=config.block_tokens
            )
        match role:
            case Role.ENCODE:
                return EncodeEngine(profile, events, self._encoded)
            case Role.PREFILL:
                inline = config.layout is Layout.TWO_STAGE
                return PrefillEngine(profile, events, self._prefilled, prefix, inline_encode=inline)
            case Role.DECODE:
                engine = DecodeEngine(profile, events, self._finished)
                engine.factor = self.stretch
                return engine
            case Role.ALL:
                return CoupledEngine(profile, events, self._first_token, self._finished, prefix)

    def _drain(self, worker: SimWorker, now_s: float) -> None:
        """No new requests; what has not started goes to the siblings."""
        self._router.open[worker.lane].remove(worker)
        worker.state = WorkerState.DRAINING
        worker.since_s = now_s
        match worker.engine:
            case EncodeEngine() as engine:
                for shard in engine.give_back():
                    self._router.reshard(worker.lane, shard, now_s)
            case PrefillEngine() as engine:
                self._send(self._router.prefill, engine.give_back(), now_s)
            case DecodeEngine() as engine:
                self._send(self._router.decode, engine.give_back(), now_s)
            case CoupledEngine() as engine:
                self._send(self._router.serve, engine.give_back(), now_s)
        self._look(now_s, worker)

    @staticmethod
    def _send(route: object, requests: list[SimRequest], now_s: float) -> None:
        assert callable(route)
        for request in requests:
            route(request, now_s)

    def _look(self, now_s: float, worker: SimWorker) -> None:
        """Empty yet? Then switch, or go."""
        if worker.engine is not None and not worker.engine.is_empty:
            self._events.at(now_s + DRAIN_POLL_S, self._look, worker)
        elif worker.next_lane is None:
            self._delete(worker, now_s)
        else:
            worker.state = WorkerState.SWITCHING
            reload = Role.ENCODE in (worker.role, worker.next_lane.role)
            profile = self._config.profile
            took_s = profile.reload_switch_s if reload else profile.switch_s
            self._events.at(now_s + took_s, self._switched, worker)

    def _switched(self, now_s: float, worker: SimWorker) -> None:
        if worker.next_lane is None:  # removed while it switched
            self._delete(worker, now_s)
            return
        worker.lane, worker.next_lane = worker.next_lane, None
        self._open(worker, now_s)

    def _delete(self, worker: SimWorker, now_s: float) -> None:
        if self.workers.pop(worker.name, None) is not None:
            self._gone_gpu_s += now_s - worker.created_s
