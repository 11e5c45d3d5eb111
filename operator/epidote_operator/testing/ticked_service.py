"""This file is about one service that is ticked by hand: its API server and its gateway pretend.

What the reconciler writes is counted; its pods are there from the beginning, and serve.
"""

import contextlib
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from epidote_operator.cache_policies import CachePolicies
from epidote_operator.kube.errors import ApiRefused
from epidote_operator.observe import cluster_observer
from epidote_operator.reconcile import Reconciler
from epidote_operator.resources.fleet_values import owner_reference
from epidote_operator.resources.labels import Component, labels, role_labels
from epidote_operator.resources.revision import revision_of
from epidote_operator.service_state import ServiceState
from epidote_operator.settings import Settings
from epidote_operator.spec.parsing import parse_service
from epidote_operator.status.persistence import dumped
from epidote_operator.telemetry import OperatorMetrics
from epidote_operator.testing.service_story import service_manifest
from epidote_operator.testing.tick_cost import READY, SHARE, part_of, serve_gateway

NAME = "quiet"
NUM_WORKERS = 4


@dataclass
class PretendApi:
    """Stores what is applied; `writes` lists what was done since it was cleared."""

    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    version: int = 1
    refuses_events: bool = False
    refused: dict[str, ApiRefused] = field(default_factory=dict)  # by what a path contains

    async def get(self, path: str, **params: Any) -> dict[str, Any] | None:
        self.reads.append(path)
        return self.stored.get(path)

    async def request(self, method: str, path: str, **params: Any) -> dict[str, Any]:
        """A list of what other revisions have left: nothing."""
        self.reads.append(path)
        return {"items": []}

    async def apply(self, path: str, body: dict[str, Any], **more: Any) -> dict[str, Any]:
        for part, error in self.refused.items():
            if part in path:
                self.writes.append(f"refused {path.rpartition('/')[2]}")
                raise error
        self.writes.append(f"apply {path.rpartition('/')[2]}")
        uid = self.stored.get(path, {}).get("metadata", {}).get("uid", path)
        self.stored[path] = found = {**body, "metadata": {**body["metadata"], "uid": uid}}
        return found

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.refuses_events and path.endswith("/events"):
            raise ApiRefused("events is forbidden", status=403, reason="Forbidden")
        if (error := self.refused.get(path.rpartition("/")[2])) is not None:
            self.writes.append(f"refused {path.rpartition('/')[2]}")
            raise error
        self.writes.append(f"create {path.rpartition('/')[2]}")
        given = body.get("stringData", {})
        data = {key: b64encode(value.encode()).decode() for key, value in given.items()}
        self.stored[f"{path}/{body['metadata']['name']}"] = found = {**body, "data": data}
        return found

    async def delete(self, path: str, *, uid: str = "", **more: Any) -> bool:
        assert self.stored[path]["metadata"]["uid"] == uid
        self.writes.append(f"delete {path.rpartition('/')[2]}")
        del self.stored[path]
        return True

    async def merge(self, path: str, body: dict[str, Any], **more: Any) -> dict[str, Any]:
        self.writes.append(f"merge {path.rpartition('/')[2]}")
        self.version += 1
        metadata = {"resourceVersion": str(self.version), "uid": "u"}
        return {"metadata": metadata, "status": body.get("status")}


@dataclass
class TickedService:
    """One service, ticked by hand."""

    api: PretendApi
    reconciler: Reconciler
    resource: dict[str, Any]
    counts: dict[str, int]
    state: ServiceState = field(default_factory=ServiceState)
    now_s: float = 1_000_000.0

    async def tick(self, after_s: float = 10.0) -> list[str]:
        """What it wrote, after so many seconds."""
        self.now_s += after_s
        self.api.writes.clear()
        self.api.reads.clear()
        before = self.resource.get("status") or {}
        status = await self.reconciler.reconcile(self.resource, self.state, self.now_s)
        if any(write == "merge status" for write in self.api.writes):
            self.resource["status"] = {**before, **dumped(status)}
            self.resource["metadata"]["resourceVersion"] = str(self.api.version)
            self.state.latest = None
        return list(self.api.writes)

    async def settle(self) -> None:
        """Until everything is there and nothing is news."""
        for _ in range(4):
            await self.tick()

    def ready(self) -> tuple[str, str]:
        """Reason and message of Ready."""
        (found,) = [c for c in self.resource["status"]["conditions"] if c["type"] == "Ready"]
        return found["reason"], found["message"]

    async def restart(self) -> None:
        """The operator's process is another one."""
        await self.state.aclose()
        self.state = ServiceState()


@contextlib.asynccontextmanager
async def ticked_service() -> AsyncIterator[TickedService]:
    """A service in Advisory mode that four workers serve; nothing of its objects is there yet."""
    counts = {"total": 0, "step": 0}
    runner, url = await serve_gateway(NUM_WORKERS, counts)
    real, cluster_observer.gateway_urls = (
        cluster_observer.gateway_urls,
        lambda pods: [f"{url}/{NAME}"],
    )
    resource = service_manifest(NAME, "none", scaling={"mode": "Advisory"})
    resource["metadata"] |= {"uid": "u", "generation": 1, "resourceVersion": "1"}
    revision = revision_of(parse_service(resource["spec"]), Settings().defaults)
    pods = [
        {
            "metadata": {
                "name": f"{NAME}-worker-{number}",
                "uid": f"uid-{number}",
                "creationTimestamp": "1970-01-01T00:00:00Z",
                "labels": labels(NAME, Component.WORKER, revision) | role_labels(SHARE[number]),
                "ownerReferences": [owner_reference(NAME, "u")],
            },
            "status": {"phase": "Running", "podIP": "127.0.0.1", "conditions": [READY]},
        }
        for number in range(NUM_WORKERS)
    ]
    parts = {part: [part_of(pods[0], part)] for part in (Component.HEAD, Component.GATEWAY)}
    parts[Component.WORKER] = pods
    api: Any = PretendApi()
    reconciler = Reconciler(
        api=api,
        pods=lambda namespace, name, part: parts[part],
        settings=Settings(),
        metrics=OperatorMetrics(),
        policies=CachePolicies(api, lambda *_: None),
    )
    made = TickedService(api, reconciler, resource, counts)
    try:
        yield made
    finally:
        cluster_observer.gateway_urls = real
        await made.state.aclose()
        await runner.cleanup()
