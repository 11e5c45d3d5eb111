"""This file is about one service in a cluster: its objects, its tick, its status. No kopf here."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from epidote_operator.act.executor import Executor, describe
from epidote_operator.act.fleet_keys import SpoiltSecret
from epidote_operator.act.head_loss import excused, follow_head, look_at_head
from epidote_operator.act.keeping import REAPPLY_S
from epidote_operator.act.kuberay_hands import KubeRayHands
from epidote_operator.act.kubernetes_hands import Asked, KubernetesHands
from epidote_operator.act.ownership import NameTaken, is_worker_of, take_back
from epidote_operator.act.switches import STUCK_S, switch_states
from epidote_operator.cache_policies import CachePolicies
from epidote_operator.following import Followed, spec_to_follow
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.loop import Tick, slos_of, tick
from epidote_operator.observe.cluster_observer import ClusterObserver, ServiceMemory
from epidote_operator.observe.pods import unplaced
from epidote_operator.observe.prometheus import source_for
from epidote_operator.resources.fleet_values import Fleet
from epidote_operator.resources.head import gateway_url
from epidote_operator.resources.labels import Component, label_selector, selector
from epidote_operator.resources.new_worker import new_worker
from epidote_operator.resources.pods import GRACE_S
from epidote_operator.resources.revision import revision_of
from epidote_operator.rolling import SHIFT_GRACE_S, Rolling, clean_up, of_revision
from epidote_operator.service_state import PodSource, ServiceState
from epidote_operator.settings import Settings
from epidote_operator.spec.cluster import Provider
from epidote_operator.spec.multimodal_service import MultimodalServiceSpec
from epidote_operator.spec.planner_policy import planner_policy
from epidote_operator.spec.scaling import ScalingMode
from epidote_operator.spec.service_status import (
    DecisionStatus,
    MultimodalServiceStatus,
    RolloutStatus,
)
from epidote_operator.status.head import HeadLook, head_trouble
from epidote_operator.status.kept import decides, kept_workers
from epidote_operator.status.news import WARNING, News, news
from epidote_operator.status.notices import (
    POLICY,
    Trouble,
    refused,
    troubled,
    with_condition,
)
from epidote_operator.status.persistence import later, newest, read_memory
from epidote_operator.status.render import Report, render
from epidote_operator.status.rollout import RolloutStep, wanted_lanes
from epidote_operator.telemetry import OperatorMetrics
from epidote_operator.telling import Teller

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reconciler:
    """Brings services to what they ask for, one tick at a time.

    `hands` may wrap what acts, for tests that break it. `stuck_s`: see `act.switches`. `may_act` is
    asked before every order to a gateway, as `api` asks before every write.
    """

    api: KubeApi
    pods: PodSource
    settings: Settings
    metrics: OperatorMetrics
    policies: CachePolicies
    hands: Callable[[KubernetesHands], Any] = lambda hands: hands
    stuck_s: float = STUCK_S
    may_act: Callable[[], bool] = lambda: True

    async def reconcile(
        self, resource: Manifest, state: ServiceState, now_s: float
    ) -> MultimodalServiceStatus:
        """One tick: objects, then observe, plan, act, then one status patch.

        Raises:
            KubeError: the API server refused or can't be reached; the next tick tries again.
        """
        resource = newest(resource, state.latest)
        before = MultimodalServiceStatus.model_validate(resource.get("status") or {})
        generation = resource["metadata"].get("generation")
        given = spec_to_follow(resource, before, kuberay=self.settings.kuberay)
        spec, refusal = given.spec, given.refusal
        if spec is None:
            told = before if refusal is None else refused(before, refusal, generation, now_s)
            return await self._tell(resource, state, before, told, now_s)
        fleet = self._fleet(resource, spec)
        self.metrics.show_promise(fleet.namespace, fleet.name, spec.slo.slo())
        event = await state.kept.ensure_keys(self.api, fleet, serving=before.revision, now_s=now_s)
        troubles: list[Trouble] = [t for t in (state.kept.keys_trouble,) if t is not None]
        if state.kept.keys is None:  # without keys of its own no part of a fleet may start
            told = troubled(before, before, troubles, generation, now_s)
            return await self._tell(resource, state, before, told, now_s)
        fleet = replace(
            fleet, revision=revision_of(spec, self.settings.defaults, state.kept.keys.generation)
        )
        await take_back(self.api, fleet, self._worker_pods(fleet), state.taken_back)
        serving = before.revision or fleet.revision
        rolls = serving != fleet.revision
        heads = self.pods(fleet.namespace, fleet.name, Component.HEAD)
        workers, pods = self._worker_pods(fleet).values(), of_revision(heads, serving)
        head = look_at_head(before.head, fleet, pods, serving, workers, state.heads)
        state.memory.pods.head = state.asked.head = head.life
        state.memory.pods.excused = excused(state.heads, head, workers)
        fleet = replace(fleet, head_changes=0 if rolls else head.changes)
        policy = await self.policies.of_service(fleet, state.kept)
        troubles += await state.kept.ensure(
            self.api,
            fleet,
            desired_workers=sum(before.kept_workers.values()),  # not what is only advised
            shifts=not rolls,
            policy=None if policy is None else policy.spec,
            pods=partial(self.pods, fleet.namespace, fleet.name),
            now_s=now_s,
        )
        rests = rolls or bool(head.trouble)
        done = await self._tick(fleet, state, before, now_s, serving, rests)
        lost = await follow_head(
            self._hands(fleet, state.memory, state.asked, serving),
            done.observation.fleet,
            state.heads,
            head,
            wanted=sum(before.kept_workers.values()),
        )
        rollout: RolloutStatus | None = None
        if rolls:
            try:
                serving, rollout = await self._roll(fleet, state, before, done, now_s, serving)
            except NameTaken as error:  # the Service is somebody else's: clients can't be shifted
                troubles.append(error)
                rollout = before.rollout
        else:
            rollout = await self._complete(fleet, state, before, done, now_s)
        await self._clean_up(fleet, state, serving, now_s)
        gateways = state.memory.gateways.all
        followed = await self.policies.spread(fleet, policy, gateways, state.told_policy, now_s)
        for asked in (state.asked, state.next_asked):
            troubles += asked.refusals.now(now_s)
        shown = self._report(resource, fleet, done, before, given, now_s, serving, rollout, head)
        status, decision = shown
        if followed is not None:
            status = with_condition(
                status, POLICY, followed, before.conditions, now_s=now_s, generation=generation
            )
        status = troubled(status, before, troubles, generation, now_s)
        if refusal is not None:
            status = refused(status, refusal, generation, now_s)
        more = [News(kind=WARNING, reason=SpoiltSecret.reason, message=event)] if event else []
        return await self._tell(resource, state, before, status, now_s, decision, [*more, *lost])

    @property
    def teller(self) -> Teller:
        return Teller(api=self.api, metrics=self.metrics)

    async def _tell(
        self,
        resource: Manifest,
        state: ServiceState,
        before: MultimodalServiceStatus,
        status: MultimodalServiceStatus,
        now_s: float,
        decision: DecisionStatus | None = None,
        more: Collection[News] = (),
    ) -> MultimodalServiceStatus:
        """The status, then Events of what is news in it."""
        await self.teller.status(resource, status, state)
        await self.teller.events(resource, (*news(before, status, decision), *more), now_s)
        return status

    def _fleet(self, resource: Manifest, spec: MultimodalServiceSpec) -> Fleet:
        metadata, defaults = resource["metadata"], self.settings.defaults
        return Fleet(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            spec=spec,
            revision=revision_of(spec, defaults),
            defaults=defaults,
        )

    async def _tick(
        self,
        fleet: Fleet,
        state: ServiceState,
        before: MultimodalServiceStatus,
        now_s: float,
        serving: str,
        rests: bool,
    ) -> Tick:
        """One tick of the revision that serves. While it `rests`, nothing is decided."""
        spec, scaling = fleet.spec, fleet.spec.scaling
        mode = ScalingMode.ADVISORY if rests and scaling.mode is ScalingMode.AUTO else scaling.mode
        memory = later(read_memory(before.memory), state.planner)
        policy = planner_policy(spec)
        executor = Executor(
            self.hands(self._hands(fleet, state.memory, state.asked, serving)),
            drain_deadline_s=float(scaling.drain_deadline_seconds),
            stuck_s=self.stuck_s,
        )
        done = await tick(
            self._observer(fleet, state, state.memory, serving),
            executor,
            policy,
            memory,
            mode=mode,
            now_s=now_s,
            keeps_workers=not rests,
            kept=kept_workers(before, policy),
        )
        if done.plan is not None:
            state.planner = done.plan.memory
        return done

    def _observer(
        self, fleet: Fleet, state: ServiceState, memory: ServiceMemory, revision: str
    ) -> ClusterObserver:
        where = (fleet.namespace, fleet.name)
        url = self.settings.prometheus_url
        made = source_for(fleet.spec.metrics, *where, default_url=url)
        return ClusterObserver(
            memory=memory,
            workers=of_revision(list(self._worker_pods(fleet).values()), revision),
            gateways=of_revision(self.pods(*where, Component.GATEWAY), revision),
            admin_key=state.kept.admin_key,
            revision=fleet.revision,
            prometheus=state.follow_source(made),
            stages={lane.role for lane in planner_policy(fleet.spec).lanes},
            expert_time_ratio=fleet.spec.experts.time_ratio,
        )

    def _hands(
        self, fleet: Fleet, memory: ServiceMemory, asked: Asked, revision: str
    ) -> KubernetesHands:
        """Hands on one revision; names and the budget are of all pods of the service."""
        common: dict[str, Any] = {
            "api": self.api,
            "namespace": fleet.namespace,
            "service": fleet.name,
            "pods": self._worker_pods(fleet),
            "gateways": memory.gateways.all,
            "make_pod": lambda name, lane, at_s: new_worker(fleet, name, lane, at_s),
            "asked": asked,
            "grace_s": fleet.spec.scaling.drain_deadline_seconds + GRACE_S,
            "may_act": self.may_act,
            "max_pods": None if revision != fleet.revision else fleet.spec.pool.most_pods,
        }
        if fleet.spec.cluster.provider is not Provider.KUBERAY:
            return KubernetesHands(**common)
        cluster = replace(fleet, revision=revision).part(Component.HEAD)
        return KubeRayHands(**common, cluster=cluster, revision=revision)

    def _worker_pods(self, fleet: Fleet) -> dict[str, Manifest]:
        """By name, of both revisions; without those that carry our labels and are another's."""
        pods = self.pods(fleet.namespace, fleet.name, Component.WORKER)
        return {pod["metadata"]["name"]: dict(pod) for pod in pods if is_worker_of(pod, fleet.uid)}

    async def _roll(
        self,
        fleet: Fleet,
        state: ServiceState,
        before: MultimodalServiceStatus,
        done: Tick,
        now_s: float,
        serving: str,
    ) -> tuple[str, RolloutStatus | None]:
        """One step towards the new revision; returns the one that serves now, and how far it is."""
        policy = planner_policy(fleet.spec)
        observer = self._observer(fleet, state, state.next_memory, fleet.revision)
        new = (await observer.look(slos_of(policy), now_s)).fleet
        rolling = self._rolling(
            fleet,
            self._hands(fleet, state.memory, state.asked, serving),
            self._hands(fleet, state.next_memory, state.next_asked, fleet.revision),
        )
        old, lanes = done.observation.fleet, wanted_lanes(before, policy)
        move, rollout = await rolling.step(old, new, lanes, before.rollout, now_s)
        logger.info(
            "rolling", extra={"service": fleet.name, "to": fleet.revision, "step": move.step}
        )
        if move.step is not RolloutStep.SHIFT:
            return serving, rollout
        old_memory, old_asked = state.memory, state.asked
        state.memory, state.asked = state.next_memory, state.next_asked
        state.next_memory, state.next_asked = ServiceMemory(), Asked()
        await old_asked.aclose()
        await old_memory.gateways.aclose()
        return fleet.revision, rollout

    def _rolling(self, fleet: Fleet, old: KubernetesHands, new: KubernetesHands) -> Rolling:
        name, revision = (fleet.namespace, fleet.name), fleet.revision
        return Rolling(
            api=self.api,
            head_trouble=head_trouble(of_revision(self.pods(*name, Component.HEAD), revision)),
            values=fleet,
            hands_old=old,
            hands_new=new,
            surge=fleet.spec.rollout.max_surge_workers,
            deadline_s=float(fleet.spec.rollout.progress_deadline_seconds),
            gateways=of_revision(self.pods(*name, Component.GATEWAY), revision),
        )

    async def _complete(
        self,
        fleet: Fleet,
        state: ServiceState,
        before: MultimodalServiceStatus,
        done: Tick,
        now_s: float,
    ) -> RolloutStatus | None:
        """What a rollout had no room for; None: nothing is left of one, or the planner goes on."""
        rollout = before.rollout
        policy = planner_policy(fleet.spec)
        if rollout is None or decides(done.plan, fleet.spec.scaling.mode, policy):
            return None
        hands = self._hands(fleet, state.memory, state.asked, fleet.revision)
        wanted = wanted_lanes(before, policy)
        seen = done.observation.fleet
        return await self._rolling(fleet, hands, hands).complete(seen, wanted, rollout, now_s)

    async def _clean_up(
        self, fleet: Fleet, state: ServiceState, serving: str, now_s: float
    ) -> None:
        """Looks for objects without pods when the revisions are new to us, and now and then."""
        kept, (swept, due_s) = {serving, fleet.revision}, state.swept
        if state.shifted[0] != serving:
            state.shifted = serving, now_s
        is_left = await clean_up(
            self.api,
            fleet,
            list(self._worker_pods(fleet).values()),
            self.pods(fleet.namespace, fleet.name, Component.GATEWAY),
            keep=kept,
            ends_gateways=now_s >= state.shifted[1] + SHIFT_GRACE_S,
            looks=swept != kept or now_s >= due_s,
        )
        if is_left:
            state.swept = set(), now_s
        elif swept != kept or now_s >= due_s:
            state.swept = kept, now_s + REAPPLY_S

    def _report(
        self,
        resource: Manifest,
        fleet: Fleet,
        done: Tick,
        before: MultimodalServiceStatus,
        given: Followed,
        now_s: float,
        serving: str,
        rollout: RolloutStatus | None,
        head: HeadLook,
    ) -> tuple[MultimodalServiceStatus, DecisionStatus | None]:
        """The status, and the decision if people should hear of it."""
        seen, spec, pods = done.observation, fleet.spec, self._worker_pods(fleet).values()
        status, decision = render(
            Report(
                now_s=now_s,
                fleet=seen.fleet,
                plan=done.plan,
                outcome=done.outcome,
                mode=spec.scaling.mode,
                policy=planner_policy(spec),
                attainment=seen.traffic.attainment,
                metrics_message=seen.traffic.message,
                experts_placed=seen.experts_placed,
                switch_states=switch_states(seen.fleet.workers),
                actions=tuple(describe(action) for action in done.plan.actions)
                if done.plan
                else (),
                gpus_per_worker=spec.pool.gpus,
                generation=resource["metadata"].get("generation"),
                rollout=rollout,
                minimum=done.minimum,
                head_trouble=head.trouble,
                scale_limit=given.scale_limit,
                num_pods=len(pods),
                num_unplaced=sum(unplaced(pod) is not None for pod in pods),
            ),
            before,
        )
        where = (fleet.namespace, fleet.name)
        for step in done.outcome.done:
            self.metrics.actions.labels(*where, step.verb).inc()
        if decision is not None:
            self.metrics.decisions.labels(*where, decision.reason).inc()
        more = {
            "selector": label_selector(selector(fleet.name, Component.WORKER)),
            "revision": serving,
            "url": gateway_url(fleet),
            "last_good_spec": dict(given.raw),
            "head": head.now,
        }
        return status.model_copy(update=more), decision
