"""This file is about what a policy sees: one window's traffic, queues and latencies."""

from dataclasses import dataclass, field

from epidote_core.modality import Modality
from epidote_core.roles import Role
from epidote_loadgen.simulate.config import SimConfig
from epidote_loadgen.simulate.coupled_engine import CoupledEngine
from epidote_loadgen.simulate.decode_engine import DecodeEngine
from epidote_loadgen.simulate.engines import EncodeEngine, PrefillEngine
from epidote_loadgen.simulate.fleet import Fleet
from epidote_loadgen.simulate.router import Router
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_planner.distribution import Distribution
from epidote_planner.experts import ExpertLoad
from epidote_planner.lane import Lane
from epidote_planner.snapshot import (
    Attainment,
    CacheSignals,
    ClusterSnapshot,
    ModalityTraffic,
    RoleSignals,
)


@dataclass
class Window:
    """Counted since the last tick."""

    arrivals: dict[Modality, list[SimRequest]] = field(default_factory=dict)
    answers: dict[Modality, list[float]] = field(default_factory=dict)  # finished output tokens
    num_first: int = 0
    num_first_in_time: int = 0
    num_finished: int = 0
    num_finished_in_time: int = 0
    num_answer_hits: int = 0
    num_images: int = 0
    num_image_hits: int = 0


class Observer:
    """Output lengths come from answers that ended, as in a real gateway: they lag."""

    def __init__(self, config: SimConfig, fleet: Fleet, router: Router) -> None:
        self._config = config
        self._fleet = fleet
        self._router = router
        self._window = Window()
        self._since_s = 0.0
        self._outputs: dict[Modality, Distribution] = {}
        self._busy_s: dict[str, float] = {}

    @property
    def window(self) -> Window:
        return self._window

    def snapshot(self, now_s: float, experts: ExpertLoad | None) -> ClusterSnapshot:
        window, self._window = self._window, Window()
        passed_s, self._since_s = max(1e-9, now_s - self._since_s), now_s
        arrivals = sum(len(items) for items in window.arrivals.values())
        return ClusterSnapshot(
            now_s=now_s,
            workers=tuple(worker.status() for worker in self._fleet.workers.values()),
            traffic=self._traffic(window, passed_s),
            traffic_at_s=now_s,
            roles=self._roles(now_s, passed_s),
            attainment=_attainment(window, now_s),
            cache=CacheSignals(
                response_hit_ratio=window.num_answer_hits / arrivals if arrivals else 0.0,
                prefix_hit_ratio=self._prefix_hits(),
                encoder_hit_ratio=(
                    window.num_image_hits / window.num_images if window.num_images else 0.0
                ),
            ),
            experts=experts,
        )

    def _traffic(self, window: Window, passed_s: float) -> tuple[ModalityTraffic, ...]:
        for modality, outputs in window.answers.items():
            self._outputs[modality] = Distribution.of(outputs)
        return tuple(
            ModalityTraffic(
                modality=modality,
                arrival_rps=len(items) / passed_s,
                input_tokens=Distribution.of([float(r.text_tokens) for r in items]),
                output_tokens=self._outputs.get(modality, Distribution()),
                images=Distribution.of([float(len(r.image_tokens)) for r in items]),
                image_tokens=Distribution.of([float(sum(r.image_tokens)) for r in items]),
            )
            for modality, items in sorted(window.arrivals.items())
        )

    def _roles(self, now_s: float, passed_s: float) -> dict[Role, RoleSignals]:
        waiting: dict[Role, int] = {}
        tokens: dict[Role, float] = {}
        running: dict[Role, int] = {}
        memory: dict[Role, list[float]] = {}
        busy: dict[Role, list[float]] = {}
        roles = {Role.ENCODE, Role.PREFILL, Role.DECODE, Role.ALL}
        for lane, stranded in self._router.stranded.items():
            waiting[lane.role] = waiting.get(lane.role, 0) + len(stranded)
            tokens[lane.role] = tokens.get(lane.role, 0.0) + sum(
                _tokens(lane, request) for request in stranded
            )
        for worker in self._fleet.workers.values():
            role, engine = worker.role, worker.engine
            if engine is None:
                continue
            waiting[role] = waiting.get(role, 0) + engine.num_waiting
            tokens[role] = tokens.get(role, 0.0) + engine.waiting_tokens()
            running[role] = running.get(role, 0) + engine.num_running
            if isinstance(engine, DecodeEngine | CoupledEngine):
                memory.setdefault(role, []).append(engine.kv_utilization)
            elif isinstance(engine, EncodeEngine | PrefillEngine):
                before = self._busy_s.get(worker.name, 0.0)
                self._busy_s[worker.name] = engine.busy_s
                spent = engine.busy_s - before if engine.busy_s >= before else engine.busy_s
                busy.setdefault(role, []).append(min(1.0, spent / passed_s))
        return {
            role: RoleSignals(
                measured_at_s=now_s,
                num_waiting=waiting.get(role, 0),
                waiting_tokens=tokens.get(role, 0.0),
                num_running=running.get(role, 0),
                kv_utilization=_mean(memory.get(role, [])),
                busy_utilization=_mean(busy.get(role, [])),
            )
            for role in roles
        }

    def _prefix_hits(self) -> float:
        hits = queries = 0
        for worker in self._fleet.workers.values():
            engine = worker.engine
            if isinstance(engine, PrefillEngine | CoupledEngine) and engine.prefix is not None:
                hits += engine.prefix.hits
                queries += engine.prefix.queries
        return hits / queries if queries else 0.0


def _tokens(lane: Lane, request: SimRequest) -> float:
    match lane.role:
        case Role.ENCODE:
            return float(sum(request.image_tokens))
        case Role.DECODE:
            return 0.0
        case _:
            return float(request.prompt_tokens)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _attainment(window: Window, now_s: float) -> Attainment:
    firsts, finished = window.num_first, window.num_finished
    return Attainment(
        measured_at_s=now_s,
        num_requests=min(firsts, finished),
        ttft_ratio=window.num_first_in_time / firsts if firsts else 1.0,
        tpot_ratio=window.num_finished_in_time / finished if finished else 1.0,
    )
