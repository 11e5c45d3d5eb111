"""This file is about acting on a cluster: pods through the API server, workers through a gateway.

Pods are named by the lowest free numbers, so that an operator that forgets that it made one (it
was killed, or its cache lags) asks for the same name again and is told that it exists.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from epidote_core.errors import EpidoteError
from epidote_core.roles import Role
from epidote_operator.act.hands import CannotAct
from epidote_operator.act.ownership import is_ours, lost_labels
from epidote_operator.act.refusals import Refusals, is_invalid
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.errors import ApiRefused, Conflict
from epidote_operator.observe.gateway_client import GatewayClient, GatewayRefused
from epidote_operator.resources.pod_notes import marked, settled
from epidote_operator.status.fleet import FleetWorker, SwitchIntent
from epidote_planner.decision import AdviseGateway, MoveExperts
from epidote_planner.lane import Lane

logger = logging.getLogger(__name__)

MAX_FOREIGN = 64  # pods of others that are called like workers, before we give up
PODS = "pods"  # all of a service are made alike
REGISTER = ""  # the register's call among those of workers, whose names are never empty

MakePod = Callable[[str, Lane, float], Manifest]  # name, lane, now


@dataclass
class Asked:
    """Calls under way of one service, kept over ticks; lost with the operator, without harm."""

    switches: dict[str, asyncio.Task[None]] = field(default_factory=dict)  # by pod uid or name
    refused: dict[str, str] = field(default_factory=dict)  # workers that rolled back, and why
    size: Counter[Role] | None = None  # that a register was told
    size_told: tuple[str, str] = ("", "")  # through which gateway, under which head
    head: str | None = None  # the life of the head that listens
    refusals: Refusals = field(default_factory=Refusals)  # pods that the API server won't have
    advice: dict[str, float] = field(default_factory=dict)  # that gateways were told last, by path

    async def aclose(self) -> None:
        for task in self.switches.values():
            task.cancel()
        await asyncio.gather(*self.switches.values(), return_exceptions=True)


@dataclass(frozen=True, kw_only=True)
class KubernetesHands:
    """The `Hands` of one service for one tick. `pods` are its worker pods as last seen."""

    api: KubeApi
    namespace: str
    service: str
    pods: Mapping[str, Manifest]
    gateways: Mapping[str, GatewayClient]  # by address, live
    make_pod: MakePod
    asked: Asked
    grace_s: int
    made: set[str] = field(default_factory=set)  # names of this tick
    max_pods: int | None = None  # the GPU budget in workers, those that leave included
    may_act: Callable[[], bool] = lambda: True  # False: another operator may lead by now

    async def mark_switch(self, worker: FleetWorker, intent: SwitchIntent) -> None:
        self.asked.refused.pop(worker.name, None)
        await self._patch(worker, marked(intent))

    async def ask_switch(self, worker: FleetWorker, intent: SwitchIntent) -> None:
        """One call at a time, and none while the register takes in counts: it would add the
        switch to counts that have it already."""
        if worker.name in self.asked.switches:
            return
        task = asyncio.create_task(self._ask(worker, intent))
        self.asked.switches[worker.name] = task
        task.add_done_callback(lambda _: self.asked.switches.pop(worker.name, None))

    async def _ask(self, worker: FleetWorker, intent: SwitchIntent) -> None:
        deadline_s = max(1.0, intent.deadline_s - intent.started_s)
        if (register := self.asked.switches.get(REGISTER)) is not None:
            await asyncio.wait([register])
        try:
            answer = await self._gateway().switch_role(
                worker.worker_id, intent.target.role, deadline_s=deadline_s, epoch=worker.epoch
            )
        except EpidoteError as error:  # the next tick sees what became of it
            logger.warning("switch unanswered", extra={"pod": worker.name, "error": str(error)})
            return
        if not answer.ok and answer.was_tried:
            self.asked.refused[worker.name] = answer.message

    def refusal(self, worker: FleetWorker) -> str | None:
        return self.asked.refused.get(worker.name)

    async def settle_switch(self, worker: FleetWorker, lane: Lane, now_s: float) -> None:
        self.asked.refused.pop(worker.name, None)
        await self._patch(worker, settled(lane, now_s))

    async def assign(self, worker: FleetWorker, lane: Lane, now_s: float) -> None:
        await self._patch(worker, settled(lane, worker.since_s))

    async def add_workers(self, lane: Lane, count: int, now_s: float) -> int:
        """Make pods under free names; one that exists already counts as made, if it is ours."""
        taken = {*self.pods, *self.made}
        room = count
        if self.max_pods is not None:
            room = min(count, max(0, self.max_pods - len(taken)))
        for _ in range(room):
            name = await self._make(lane, taken, now_s)
            taken.add(name)
            self.made.add(name)
        return room

    async def _make(self, lane: Lane, taken: set[str], now_s: float) -> str:
        """One pod under the first free name. Names that others hold are added to `taken`."""
        for _ in range(MAX_FOREIGN):
            (name,) = free_names(self.service, taken, 1)
            body = self.make_pod(name, lane, now_s)
            self.asked.refusals.demand_due(PODS, body, now_s)
            try:
                await self.api.create(paths.collection("v1", "pods", self.namespace), body)
            except Conflict as conflict:
                if not conflict.already_exists:
                    raise
                found = await self.api.get(paths.pod(self.namespace, name))
                if found is None or not is_ours(found, body):
                    taken.add(name)
                    continue
                if labels := lost_labels(found, body):  # it is there, and the watch can't see it
                    logger.warning("labels put back", extra={"pod": name, "labels": labels})
                    metadata = {"uid": found["metadata"]["uid"], "labels": labels}
                    await self.api.merge(paths.pod(self.namespace, name), {"metadata": metadata})
            except ApiRefused as refused:
                if not is_invalid(refused):
                    raise
                raise self.asked.refusals.note(PODS, body, refused, now_s) from refused
            self.asked.refusals.forget(PODS)
            return name
        raise CannotAct(
            f"no free name for a worker: {MAX_FOREIGN} pods of others are called like {name}"
        )

    async def remove_worker(self, worker: FleetWorker, *, drain: bool) -> None:
        """Deletion with the drain's time: the worker drains on SIGTERM, the node kills it after."""
        await self.api.delete(
            paths.pod(self.namespace, worker.name),
            grace_s=self.grace_s if drain else 0,
            uid=self._uid(worker),
        )

    async def match_size(self, assigned: Counter[Lane], known: int | None) -> None:
        """Tell the register, once for each change, each gateway that is asked, and each head.

        And again where it has another size by now: nobody else owns that.
        """
        counts: Counter[Role] = Counter()
        for lane, count in assigned.items():
            counts[lane.role] += count
        counts = +counts
        if not counts or self.asked.switches:
            return
        gateway = self._gateway()
        told = (gateway.url, self.asked.head or self.asked.size_told[1])
        is_told = (counts, told) == (self.asked.size, self.asked.size_told)
        if is_told and known in (None, counts.total()):
            return
        try:
            await gateway.set_num_workers(counts.total())
        except GatewayRefused as refused:
            if refused.status != 400:  # a fleet of fixed size: pods are all there is to it
                raise
        self.asked.size, self.asked.size_told = counts, told
        task = asyncio.create_task(self._leave_roles(gateway, counts))
        self.asked.switches[REGISTER] = task
        task.add_done_callback(lambda _: self.asked.switches.pop(REGISTER, None))

    async def _leave_roles(self, gateway: GatewayClient, counts: Counter[Role]) -> None:
        """Newcomers shall take the roles that are missing; those who serve are in theirs already.

        It may wait for switches that others asked for, hence not within a tick.
        """
        try:
            await gateway.set_roles(counts)
        except EpidoteError as error:  # then they take what the register chooses
            logger.info("roles not left for newcomers", extra={"why": str(error)})

    async def advise(self, advice: AdviseGateway) -> None:
        """Tell every gateway at each change, and again while it lasts: they forget in a minute.

        A gateway without a response cache has nothing to relax (404), which is fine. There is no
        lossy option that a gateway could use yet: that pressure is shown in the status alone.
        """
        for path, name, value in (
            ("/admin/cache/pressure", "pressure", advice.cache_pressure),
            ("/admin/shed", "ratio", advice.shed_ratio),
        ):
            if value == 0.0 and self.asked.advice.get(path, 0.0) == 0.0:
                continue
            for gateway in self.gateways.values():
                self._demand_leadership()
                try:
                    await gateway.put(path, {name: value})
                except GatewayRefused as refused:
                    if refused.status not in (404, 405):
                        raise
            self.asked.advice[path] = value

    async def move_experts(self, action: MoveExperts) -> None:
        """Told to one gateway: the register has it, and workers that come later hear it there."""
        await self._gateway().place_experts(action.move.placement)

    def _gateway(self) -> GatewayClient:
        self._demand_leadership()
        for gateway in self.gateways.values():
            return gateway
        raise CannotAct("no gateway can be reached")

    def _demand_leadership(self) -> None:
        if not self.may_act():
            raise CannotAct("not done: another operator may lead by now")

    def _uid(self, worker: FleetWorker) -> str:
        pod = self.pods.get(worker.name)
        return str(pod["metadata"]["uid"]) if pod is not None else ""

    async def _patch(self, worker: FleetWorker, patch: Manifest) -> None:
        """Of this very pod: another one under the name is left alone."""
        body = {**patch, "metadata": {**patch["metadata"], "uid": self._uid(worker)}}
        try:
            await self.api.merge(paths.pod(self.namespace, worker.name), body)
        except Conflict as conflict:
            raise CannotAct(f"pod {worker.name} is another one by now: {conflict}") from conflict


def free_names(service: str, taken: Collection[str], count: int) -> list[str]:
    """The first `count` names that no pod has.

    >>> free_names("demo", ["demo-worker-0", "demo-worker-2"], 2)
    ['demo-worker-1', 'demo-worker-3']
    """
    names: list[str] = []
    number = 0
    while len(names) < count:
        name = f"{service}-worker-{number}"
        if name not in taken:
            names.append(name)
        number += 1
    return names
