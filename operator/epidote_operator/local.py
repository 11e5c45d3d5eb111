"""This file is about `epidote-operator local`: the operator's loop on a local `epidote serve`.

No Kubernetes: the gateway is observed and told, the MultimodalService is a file, and the status is
printed instead of written.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from epidote_operator.act.executor import Executor, describe
from epidote_operator.act.local_hands import LocalHands
from epidote_operator.act.switches import switch_states
from epidote_operator.loop import Tick, tick
from epidote_operator.observe.gateway_client import GatewayClient
from epidote_operator.observe.local_observer import LocalObserver
from epidote_operator.spec.multimodal_service import MultimodalServiceSpec
from epidote_operator.spec.planner_policy import planner_policy
from epidote_operator.spec.service_status import DecisionStatus, MultimodalServiceStatus
from epidote_operator.status.render import Report, render
from epidote_planner import PlannerMemory

NO_STATUS = MultimodalServiceStatus()


@dataclass(frozen=True, kw_only=True)
class LocalTick:
    """One tick as it is shown; `decision` only where it is news."""

    tick: Tick
    status: MultimodalServiceStatus
    decision: DecisionStatus | None


class LocalOperator:
    """The control loop of one service at one gateway."""

    def __init__(self, spec: MultimodalServiceSpec, gateway: GatewayClient) -> None:
        self._spec, self._policy = spec, planner_policy(spec)
        self._hands = LocalHands(gateway)
        self._observer = LocalObserver(
            gateway, self._hands.intents, expert_time_ratio=spec.experts.time_ratio
        )
        self._executor = Executor(
            self._hands, drain_deadline_s=float(spec.scaling.drain_deadline_seconds)
        )
        self.status = NO_STATUS

    @classmethod
    @asynccontextmanager
    async def at(
        cls, url: str, admin_key: str | None, spec: MultimodalServiceSpec
    ) -> AsyncIterator["LocalOperator"]:
        gateway = GatewayClient(url, admin_key)
        operator = cls(spec, gateway)
        try:
            yield operator
        finally:
            await operator._hands.aclose()
            await gateway.aclose()

    async def tick(self, now_s: float) -> LocalTick:
        """Observe, plan, act, report."""
        done = await tick(
            self._observer,
            self._executor,
            self._policy,
            PlannerMemory.from_json(self.status.memory),
            mode=self._spec.scaling.mode,
            now_s=now_s,
            keeps_workers=False,  # `epidote serve` keeps its own
            clears_ended=False,
        )
        fleet = done.observation.fleet
        self.status, decision = render(
            Report(
                now_s=now_s,
                fleet=fleet,
                plan=done.plan,
                outcome=done.outcome,
                mode=self._spec.scaling.mode,
                policy=self._policy,
                attainment=done.observation.traffic.attainment,
                metrics_message=done.observation.traffic.message,
                experts_placed=done.observation.experts_placed,
                switch_states=switch_states(fleet.workers),
                actions=tuple(describe(action) for action in done.plan.actions)
                if done.plan
                else (),
                gpus_per_worker=self._spec.pool.gpus,
            ),
            self.status,
        )
        return LocalTick(tick=done, status=self.status, decision=decision)

    async def run(
        self, show: Callable[[LocalTick], None], *, clock: Callable[[], float], ticks: int | None
    ) -> None:
        """Tick by tick until cancelled, or `ticks` times."""
        count = 0
        while ticks is None or count < ticks:
            started_s = clock()
            show(await self.tick(started_s))
            count += 1
            if ticks is None or count < ticks:
                left_s = self._policy.tick_s - (clock() - started_s)
                await asyncio.sleep(max(0.0, left_s))
