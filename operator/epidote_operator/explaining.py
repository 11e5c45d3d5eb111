"""This file is about `epidote-operator explain`: the next decision, computed and not acted upon."""

import asyncio
import time
from base64 import b64decode

from epidote_operator.act.local_hands import LocalHands
from epidote_operator.following import spec_to_follow
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.credentials import find_credentials
from epidote_operator.loop import slos_of, snapshot_of
from epidote_operator.observe.cluster_observer import ClusterObserver, ServiceMemory
from epidote_operator.observe.gateway_client import GatewayClient
from epidote_operator.observe.local_observer import LocalObserver
from epidote_operator.observe.observation import Observer
from epidote_operator.observe.prometheus import source_for
from epidote_operator.resources.labels import Component, label_selector, selector
from epidote_operator.spec.multimodal_service import MultimodalServiceSpec
from epidote_operator.spec.planner_policy import planner_policy
from epidote_operator.spec.service_status import MultimodalServiceStatus
from epidote_operator.status.persistence import read_memory
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


async def explain_in_cluster(
    name: str, namespace: str | None, *, window_s: float, prometheus_url: str = ""
) -> tuple[Plan, str]:
    """Of a service in the cluster that the credentials point at, by its own memory; and a remark.

    Reads pods, the fleet's internal Secret, and the gateways at their pods' addresses: run it where
    those can be reached. Changes nothing. `prometheus_url`: for services that name none.

    Raises:
        KubeError: no credentials, no such service, or no permission.
        InvalidSpec: the spec is invalid, and none before it was good.
    """
    credentials = find_credentials()
    where = namespace or credentials.namespace
    async with KubeApi.connected(credentials) as api:
        return await explain_with(
            api, where, name, window_s=window_s, prometheus_url=prometheus_url
        )


async def explain_with(
    api: KubeApi, where: str, name: str, *, window_s: float, prometheus_url: str
) -> tuple[Plan, str]:
    """As `explain_in_cluster`."""
    resource = await api.request("GET", paths.service(where, name))
    status = MultimodalServiceStatus.model_validate(resource.get("status") or {})
    spec, remark = spec_in_force(resource, status)
    secret = await api.get(paths.item("v1", "secrets", where, f"{name}-internal")) or {}
    key = secret.get("data", {}).get("admin-key")

    async def pods(component: Component) -> list[Manifest]:
        # While another revision comes up, the one that serves is decided about.
        wanted = label_selector(selector(name, component, status.revision or None))
        path = paths.collection("v1", "pods", where)
        listed = await api.request("GET", path, params={"labelSelector": wanted})
        return list(listed["items"])

    policy, memory = planner_policy(spec), ServiceMemory()
    observer = ClusterObserver(
        memory=memory,
        workers=await pods(Component.WORKER),
        gateways=await pods(Component.GATEWAY),
        admin_key=b64decode(key).decode() if key else None,
        revision=status.revision,
        prometheus=source_for(spec.metrics, where, name, default_url=prometheus_url),
        stages={lane.role for lane in policy.lanes},
    )
    try:
        decided = await next_plan(observer, policy, read_memory(status.memory), window_s=window_s)
        return decided, remark
    finally:
        await memory.gateways.aclose()


def spec_in_force(
    resource: Manifest, status: MultimodalServiceStatus
) -> tuple[MultimodalServiceSpec, str]:
    """What the operator follows, and a remark if that is not the present spec.

    Raises:
        InvalidSpec: there is no good one.
    """
    followed = spec_to_follow(resource, status)
    if followed.refusal is None:
        remark = ""
    elif followed.spec is None:
        raise followed.refusal
    else:
        remark = f"the spec is invalid, and the last good one is followed: {followed.refusal}"
    assert followed.spec is not None, "without a refusal there is a spec"
    return followed.spec, remark
