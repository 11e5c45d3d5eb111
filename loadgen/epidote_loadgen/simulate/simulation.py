"""This file is about one run: a trace through a fleet that a policy re-shapes at every tick."""

from collections import OrderedDict
from collections.abc import Iterable
from random import Random
from typing import Any

from epidote_core.modality import Modality
from epidote_loadgen.simulate.config import Layout, SimConfig
from epidote_loadgen.simulate.events import Events
from epidote_loadgen.simulate.fleet import Fleet
from epidote_loadgen.simulate.observer import Observer
from epidote_loadgen.simulate.outcome import Outcome, Recorder
from epidote_loadgen.simulate.policy import Decision, Policy
from epidote_loadgen.simulate.router import Router
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_planner.decision import (
    AddWorkers,
    AdviseGateway,
    MoveExperts,
    RemoveWorker,
    SwitchRole,
)
from epidote_planner.experts import ExpertLoad, decode_stretch

SETTLE_S = 3600.0  # longest time after the last arrival that open requests may take


class Simulation:
    """Deterministic: the trace, the configuration (with its seed) and the policy decide all."""

    def __init__(self, config: SimConfig, policy: Policy) -> None:
        self._config = config
        self._policy = policy
        self._events = Events()
        self._router = Router(config)
        self._fleet = Fleet(
            config,
            self._events,
            self._router,
            encoded=self._on_encoded,
            prefilled=self._on_prefilled,
            first_token=self._on_first_token,
            finished=self._on_finished,
        )
        self._observer = Observer(config, self._fleet, self._router)
        self._recorder = Recorder(config)
        self._slos = {modality: config.slo_for(modality) for modality in Modality}
        self._random = Random(config.seed)
        self._memory: Any = None
        self._answers: dict[int, float] = {}
        self._images: OrderedDict[int, None] = OrderedDict()
        self._pressure = 0.0
        self._shed_ratio = 0.0
        self._imbalance = list(config.imbalance)
        self._experts: ExpertLoad | None = None
        self._open = 0

    def run(self, trace: Iterable[SimRequest]) -> Outcome:
        """Play the trace to its end, and until the last admitted request is answered."""
        events, tick_s = self._events, self._config.tick_s
        self._fleet.populate(self._config.initial)
        next_tick_s = tick_s
        last_s = 0.0
        for request in trace:
            last_s = request.arrival_s
            while next_tick_s <= last_s:
                events.run_until(next_tick_s)
                self._tick(next_tick_s)
                next_tick_s += tick_s
            events.run_until(last_s)
            self._arrive(request, last_s)
        while self._open and next_tick_s < last_s + SETTLE_S:
            events.run_until(next_tick_s)
            self._tick(next_tick_s)
            next_tick_s += tick_s
        self._recorder.close(events.now_s, self._fleet.gpu_seconds(events.now_s))
        return self._recorder.outcome(
            num_lost=self._open,
            num_switches=self._fleet.num_switches,
            num_starts=self._fleet.num_starts,
            num_removals=self._fleet.num_removals,
        )

    def _arrive(self, request: SimRequest, now_s: float) -> None:
        window = self._observer.window
        window.arrivals.setdefault(request.modality, []).append(request)
        self._open += 1
        if self._answered(request, now_s):
            return
        if self._shed_ratio > 0.0 and self._random.random() < self._shed_ratio:
            self._open -= 1
            self._recorder.shed(request)
            return
        if request.image_ids is not None and self._config.encoder_cache_images:
            self._look_up_images(request)
        self._router.admit(request, now_s)

    def _answered(self, request: SimRequest, now_s: float) -> bool:
        """Response cache: an equal question within the TTL, which pressure stretches."""
        if request.answer_id is None or self._config.answer_ttl_s <= 0.0:
            return False
        ttl_s = self._config.answer_ttl_s * (1.0 + self._pressure)
        known_s = self._answers.get(request.answer_id)
        if known_s is None or now_s - known_s > ttl_s:
            return False
        self._observer.window.num_answer_hits += 1
        request.output_tokens = 1
        self._on_first_token(request, now_s + self._config.answer_s)
        self._on_finished(request, now_s + self._config.answer_s)
        return True

    def _look_up_images(self, request: SimRequest) -> None:
        """Images that the encoder cache holds need no encoder."""
        cache, window = self._images, self._observer.window
        missing = []
        for image, tokens in zip(request.image_ids or (), request.image_tokens, strict=True):
            window.num_images += 1
            if image in cache:
                window.num_image_hits += 1
            else:
                missing.append(tokens)
            cache[image] = None
            cache.move_to_end(image)
        while len(cache) > self._config.encoder_cache_images:
            cache.popitem(last=False)
        request.image_tokens = tuple(missing)
        request.encoded = not missing

    def _on_encoded(self, request: SimRequest, now_s: float) -> None:
        request.shards_left -= 1
        if request.shards_left == 0:
            request.encoded = True
            moved_s = self._config.profile.transfer.embeddings_s(sum(request.image_tokens))
            self._events.at(now_s + moved_s, self._to_prefill, request)

    def _to_prefill(self, now_s: float, request: SimRequest) -> None:
        self._router.prefill(request, now_s)

    def _on_prefilled(self, request: SimRequest, now_s: float) -> None:
        self._on_first_token(request, now_s)
        if request.output_tokens <= 1:
            self._on_finished(request, now_s)
            return
        moved_s = self._config.profile.transfer.kv_s(request.prompt_tokens)
        self._events.at(now_s + moved_s, self._to_decode, request)

    def _to_decode(self, now_s: float, request: SimRequest) -> None:
        self._router.decode(request, now_s)

    def _on_first_token(self, request: SimRequest, now_s: float) -> None:
        request.first_token_s = now_s
        window = self._observer.window
        window.num_first += 1
        if now_s - request.arrival_s <= self._slos[request.modality].ttft_s:
            window.num_first_in_time += 1

    def _on_finished(self, request: SimRequest, now_s: float) -> None:
        request.finished_s = now_s
        self._open -= 1
        window = self._observer.window
        window.num_finished += 1
        if request.tpot_s <= self._slos[request.modality].tpot_s:
            window.num_finished_in_time += 1
        window.answers.setdefault(request.modality, []).append(float(request.output_tokens))
        if request.answer_id is not None:
            self._answers.setdefault(request.answer_id, now_s)
        self._recorder.finished(request)

    def _tick(self, now_s: float) -> None:
        self._skew(now_s)
        snapshot = self._observer.snapshot(now_s, self._experts)
        decision = self._policy(snapshot, self._memory)
        self._memory = decision.memory
        self._act(decision, now_s)
        self._recorder.tick(snapshot, decision, self._fleet.count())

    def _skew(self, now_s: float) -> None:
        while self._imbalance and self._imbalance[0][0] <= now_s:
            _, imbalance, share = self._imbalance.pop(0)
            self._experts = ExpertLoad(imbalance=imbalance, expert_time_ratio=share)
            self._fleet.set_stretch(decode_stretch(imbalance, share), now_s)

    def _act(self, decision: Decision, now_s: float) -> None:
        self._pressure = self._shed_ratio = 0.0
        for action in decision.actions:
            match action:
                case AdviseGateway():
                    self._pressure = action.cache_pressure
                    self._shed_ratio = action.shed_ratio
                case SwitchRole():
                    self._fleet.switch(action.worker, action.target, now_s)
                case MoveExperts():
                    if self._experts is not None:
                        self._experts = ExpertLoad(
                            imbalance=action.move.imbalance,
                            expert_time_ratio=self._experts.expert_time_ratio,
                        )
                        stretch = decode_stretch(
                            action.move.imbalance, self._experts.expert_time_ratio
                        )
                        self._fleet.set_stretch(stretch, now_s)
                case AddWorkers():
                    self._fleet.add(action.lane, action.count, now_s)
                case RemoveWorker():
                    self._fleet.remove(action.worker, now_s)


def simulate(config: SimConfig, policy: Policy, trace: Iterable[SimRequest]) -> Outcome:
    """One run.

    A coupled layout serves by workers of the role `all`, so its initial fleet must name it.
    """
    roles = {lane.role.value for lane in config.initial}
    if config.layout is Layout.COUPLED and roles != {"all"}:
        raise ValueError(f"a coupled layout starts with workers of the role all, got {roles}")
    return Simulation(config, policy).run(trace)
