"""This file is about `epidote-operator explain`: the next decision, computed and not acted upon."""

import asyncio
import time

from epidote_operator.act.local_hands import LocalHands
from epidote_operator.loop import slos_of, snapshot_of
from epidote_operator.observe.gateway_client import GatewayClient
from epidote_operator.observe.local_observer import LocalObserver
from epidote_operator.observe.observation import Observer
from epidote_operator.spec.multimodal_service import MultimodalServiceSpec
from epidote_operator.spec.planner_policy import planner_policy
from epidote_planner import Plan, PlannerMemory, PlannerPolicy, plan


async def next_plan(
    observer: Observer, policy: PlannerPolicy, memory: PlannerMemory | None, *, window_s: float
) -> Plan:
    """Look twice, `window_s` apart (rates need two looks), and decide."""
    await observer.look(slos_of(policy), time.time())
    await asyncio.sleep(window_s)
    now_s = time.time()
    observation = await observer.look(slos_of(policy), now_s)
    return plan(snapshot_of(observation, now_s), policy, memory)


async def explain_locally(
    spec: MultimodalServiceSpec, url: str, admin_key: str | None, *, window_s: float
) -> Plan:
    """Of a local `epidote serve`. Raises `GatewayUnreachable`."""
    gateway = GatewayClient(url, admin_key)
    try:
        await gateway.fleet(time.time())
        observer = LocalObserver(gateway, LocalHands(gateway).intents)
        return await next_plan(observer, planner_policy(spec), None, window_s=window_s)
    finally:
        await gateway.aclose()
