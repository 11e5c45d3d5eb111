"""This file is about telling stories of one service on a test cluster: apply, tick, break, look.

`OperatorLife` is one life of an operator without kopf: ticks are called by the test, pods are
listed instead of watched, and a life can be ended in the middle of a tick.
"""

import asyncio
import contextlib
import copy
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from epidote_operator.act.kubernetes_hands import KubernetesHands
from epidote_operator.cache_policies import CachePolicies
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.errors import KubeError
from epidote_operator.reconcile import Reconciler
from epidote_operator.resources.labels import SERVICE, Component, label_selector, selector
from epidote_operator.service_state import ServiceState
from epidote_operator.settings import Settings
from epidote_operator.spec.cache_policy import PLURAL as POLICIES
from epidote_operator.spec.service_status import MultimodalServiceStatus
from epidote_operator.telemetry import OperatorMetrics

TICK_S = 0.25
PATIENCE_S = 300.0  # ten times what the longest of them takes on two idle cores
REAL_PATIENCE_S = 400.0  # real workers import torch, a fleet and its successor at once
NAMESPACE = "default"
DEMO = Path(__file__).resolve().parents[3] / "crds/samples/demo.yaml"

Pods = dict[str, Manifest]


def service_manifest(name: str, image: str, **spec: Any) -> Manifest:
    """A service of pretend workers: one encoder, one prefill worker, two decoders, each a "GPU".

    `spec` replaces whole parts. Everything follows demand within a second or so.
    """
    base: Manifest = {
        "model": {"uri": "builtin://demo"},
        "image": image,
        "pool": {
            "minWorkers": 4,
            "maxWorkers": 4,
        },
        "slo": {"ttftMilliseconds": 5000, "tpotMilliseconds": 500},
        "scaling": {
            "tickSeconds": 1,
            "dwellSeconds": 0,
            "switchCooldownSeconds": 0,
            "shrinkWindowSeconds": 6,  # also what a switch may win
            "drainDeadlineSeconds": 30,
            "metricsTimeoutSeconds": 60,
            "startBackoffSeconds": 1,  # a start that a loaded machine spoils costs no patience
            "forecast": {"burstSigmasPercent": 0, "smoothingSeconds": 2},
        },
        "performance": {
            "name": "pretend",
            "provenance": "so fast that the bounds decide",
            "prefill": {"perTokenNanoseconds": 1},
            "decode": {"baseMicroseconds": 1},
            "startupSeconds": 5,
            "reloadSwitchMilliseconds": 100,
        },
    }
    return {
        "apiVersion": paths.API_VERSION,
        "kind": "MultimodalService",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {**base, **spec},
    }


def demo_sample(name: str, num_workers: int, **scaling: Any) -> Manifest:
    """The demo sample with so many real workers and small caches, looked at every second."""
    document: Manifest = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    document["metadata"] = {"name": name, "namespace": NAMESPACE}
    sizes = {"minWorkers": num_workers, "maxWorkers": num_workers}
    document["spec"]["pool"] |= {**sizes, "kvBlocks": 512}
    document["spec"]["scaling"] |= {"tickSeconds": 1, **scaling}
    return document


@dataclass
class OperatorLife:
    """One operator process, as far as a service can tell."""

    api: KubeApi
    name: str
    hands: Callable[[KubernetesHands], Any] = lambda hands: hands
    stuck_s: float = 60.0
    state: ServiceState = field(default_factory=ServiceState)
    skew_s: float = 0.0  # added to the clock: time flies
    _pods: dict[Component, list[Manifest]] = field(default_factory=dict)
    _policy: Manifest | None = None  # the one that the service names
    _policies: CachePolicies | None = None

    async def tick(self) -> MultimodalServiceStatus:
        """Look at the cluster afresh, and reconcile once."""
        resource = await get_service(self.api, self.name)
        for component in Component:
            wanted = label_selector(selector(self.name, component))
            listed = await self.api.request(
                "GET",
                paths.collection("v1", "pods", NAMESPACE),
                params={"labelSelector": wanted},
            )
            self._pods[component] = listed["items"]
        if policy := resource["spec"].get("cache", {}).get("policyName"):
            path = paths.item(paths.API_VERSION, POLICIES, NAMESPACE, policy)
            self._policy = await self.api.get(path)
        self._policies = self._policies or CachePolicies(self.api, lambda *_: self._policy)
        reconciler = Reconciler(
            api=self.api,
            pods=self._listed,
            settings=Settings(),
            metrics=OperatorMetrics(),
            policies=self._policies,
            hands=self.hands,
            stuck_s=self.stuck_s,
        )
        return await reconciler.reconcile(resource, self.state, time.time() + self.skew_s)

    def _listed(
        self, namespace: str, service: str, component: Component
    ) -> Collection[Mapping[str, Any]]:
        return copy.deepcopy(self._pods.get(component, []))

    async def until(
        self,
        good: Callable[[MultimodalServiceStatus], bool],
        what: str,
        *,
        patience_s: float = PATIENCE_S,
    ) -> MultimodalServiceStatus:
        """Tick until the status is good; fails with the last status otherwise.

        An API server that is away or starts is waited for, as the real ticker does.
        """
        status: MultimodalServiceStatus | None = None
        trouble, num_ticks = "", 0
        try:
            async with asyncio.timeout(patience_s):
                while status is None or not good(status):
                    num_ticks += 1
                    try:
                        status = await self.tick()
                        trouble = ""
                    except KubeError as error:
                        trouble = str(error)
                    await asyncio.sleep(TICK_S)
        except TimeoutError:
            hidden = {"memory", "last_good_spec", "decisions"}
            shown = status.model_dump_json(exclude=hidden, indent=1) if status else "no status"
            last = [decision.text for decision in status.decisions[:3]] if status else []
            raise AssertionError(
                f"never came true in {num_ticks} ticks: {what}; {trouble}; {last}; {shown}"
            ) from None
        return status

    async def end(self) -> None:
        """The process is gone: calls under way are dropped, nothing else happens."""
        await self.state.aclose()


def roles(status: MultimodalServiceStatus) -> tuple[int, int, int]:
    """Ready workers as (encode, prefill, decode)."""
    by_name = {role.name.value: role.ready for role in status.roles}
    return (by_name.get("Encode", 0), by_name.get("Prefill", 0), by_name.get("Decode", 0))


def settled(encode: int, prefill: int, decode: int) -> Callable[[MultimodalServiceStatus], bool]:
    """Whether exactly these serve, and nobody else is there or on the way."""

    def good(status: MultimodalServiceStatus) -> bool:
        total = encode + prefill + decode
        return (
            condition(status, "Ready")[0] == "True"
            and roles(status) == (encode, prefill, decode)
            and status.workers == total
            and not status.switches
        )

    return good


def condition(status: MultimodalServiceStatus, kind: str) -> tuple[str, str]:
    """(status, reason) of a condition."""
    found = next(c for c in status.conditions if c.type == kind)
    return found.status.value, found.reason


async def get_service(api: KubeApi, name: str) -> Manifest:
    return await api.request("GET", paths.service(NAMESPACE, name))


async def change_service(api: KubeApi, name: str, spec: Manifest) -> None:
    """Merge `spec` into the service's."""
    await api.merge(paths.service(NAMESPACE, name), {"spec": spec})


async def worker_pods(api: KubeApi, name: str) -> Pods:
    """Worker pods by name."""
    wanted = label_selector(selector(name, Component.WORKER))
    path = paths.collection("v1", "pods", NAMESPACE)
    listed = await api.request("GET", path, params={"labelSelector": wanted})
    return {pod["metadata"]["name"]: pod for pod in listed["items"]}


@contextlib.asynccontextmanager
async def service_of_its_own(api: KubeApi, manifest: Manifest) -> AsyncIterator[str]:
    """Made, and deleted with all of its pods however the block ends; its name."""
    name = manifest["metadata"]["name"]
    await api.apply(paths.service(NAMESPACE, name), manifest)
    try:
        yield name
    finally:
        await delete_service(api, name)


async def delete_service(api: KubeApi, name: str) -> None:
    """Delete it and wait until every pod of it is gone."""
    await api.delete(paths.service(NAMESPACE, name))
    path = paths.collection("v1", "pods", NAMESPACE)

    async def gone() -> bool:
        listed = await api.request("GET", path, params={"labelSelector": f"{SERVICE}={name}"})
        return not listed["items"]

    await until_true(gone, f"pods of {name} are gone")


async def until_true(good: Callable[[], Awaitable[bool]], what: str) -> None:
    """Poll until it holds."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await good():
                await asyncio.sleep(TICK_S)
    except TimeoutError:
        raise AssertionError(f"never came true: {what}") from None
