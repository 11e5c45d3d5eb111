"""What a tick writes: nothing where nothing changed, one status where something did."""

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

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
from epidote_operator.status.persistence import MEMORY_S, dumped
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
class Service:
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


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    counts = {"total": 0, "step": 0}
    runner, url = await serve_gateway(NUM_WORKERS, counts)
    monkeypatch.setattr(cluster_observer, "gateway_urls", lambda pods: [f"{url}/{NAME}"])
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
    made = Service(api, reconciler, resource, counts)
    yield made
    await made.state.aclose()
    await runner.cleanup()


async def settled(service: Service) -> None:
    for _ in range(4):
        await service.tick()


async def test_a_service_at_rest_costs_no_call(service: Service) -> None:
    await settled(service)
    for _ in range(3):
        assert await service.tick(1.0) == []
        assert service.api.reads == []


async def test_at_rest_the_planners_memory_alone_is_written_once_a_minute(
    service: Service,
) -> None:
    await settled(service)
    writes = [await service.tick(MEMORY_S / 6) for _ in range(12)]
    assert sum(map(len, writes)) == 2
    assert {line for lines in writes for line in lines} == {"merge status"}


async def test_figures_that_change_cost_one_write(service: Service) -> None:
    await settled(service)
    service.counts["step"] = 7
    for _ in range(3):
        await service.tick()
    assert await service.tick() == ["merge status"]
    assert service.api.reads == []


async def test_another_number_of_workers_touches_the_disruption_budget_alone(
    service: Service,
) -> None:
    await settled(service)
    service.resource["status"]["keptWorkers"] = {"encode": 1, "decode": 1}
    assert "apply quiet-worker" in (writes := await service.tick(1.0))
    assert [line for line in writes if line.startswith("apply")] == ["apply quiet-worker"]
    assert service.api.reads == []


@pytest.mark.parametrize("part", [Component.GATEWAY, Component.HEAD])
async def test_a_deployment_of_which_no_pod_stays_is_applied_again_at_once(
    service: Service, part: Component
) -> None:
    """Somebody deleted it: the five minutes until everything is looked after serve nobody."""
    await settled(service)
    pods: Any = service.reconciler.pods("default", NAME, part)
    pods[0]["metadata"]["deletionTimestamp"] = "2026-11-21T00:00:00Z"
    revision = service.resource["status"]["revision"]
    wanted = f"apply {NAME}-{part.value}-{revision}"
    assert await service.tick(1.0) == [wanted]
    assert await service.tick(1.0) == [], "its pods are on their way"
    pods.clear()
    writes = [await service.tick(1.0) for _ in range(9)]
    assert [line for lines in writes for line in lines] == [wanted], "one that makes none costs"
    workers: Any = service.reconciler.pods("default", NAME, Component.WORKER)
    pods.append(part_of(workers[0], part))
    assert await service.tick(60.0) in ([], ["merge status"])


def ready(service: Service) -> tuple[str, str]:
    """Reason and message of Ready."""
    (found,) = [c for c in service.resource["status"]["conditions"] if c["type"] == "Ready"]
    return found["reason"], found["message"]


async def test_a_service_of_a_user_is_left_alone_and_the_fleet_serves_on(service: Service) -> None:
    path = f"/api/v1/namespaces/default/services/{NAME}"
    theirs = {"metadata": {"name": NAME, "uid": "x"}, "spec": {"selector": {"app": "mine"}}}
    service.api.stored[path] = theirs
    writes = await service.tick()
    assert service.api.stored[path] is theirs
    assert f"apply {NAME}-gateway" in writes, "the rest is there"
    assert ready(service)[0] == "NameTaken"
    assert f"Service '{NAME}' must be free" in ready(service)[1]
    assert writes.count("create events") == 2, "the decision, and the warning"
    assert service.resource["status"]["readyWorkers"] == NUM_WORKERS
    await settled(service)
    assert await service.tick(1.0) == [], "it is told once"
    del service.api.stored[path]
    assert await service.tick() == [f"apply {NAME}", "merge status", "create events"]
    assert ready(service)[0] == "EveryStageServed"


async def test_a_secret_of_somebody_else_is_named_and_nothing_is_made(service: Service) -> None:
    path = f"/api/v1/namespaces/default/secrets/{NAME}-internal"
    service.api.stored[path] = {"metadata": {"name": f"{NAME}-internal", "uid": "x"}, "data": {}}
    assert await service.tick() == ["merge status", "create events"]
    assert ready(service)[0] == "NameTaken"
    assert await service.tick() == []


async def test_a_lost_secret_is_made_again_while_the_operator_lives(service: Service) -> None:
    await settled(service)
    path = f"/api/v1/namespaces/default/secrets/{NAME}-internal"
    del service.api.stored[path]
    writes = await service.tick(400.0)
    assert (writes.count("create secrets"), writes.count("create events")) == (1, 1)
    assert path in service.api.stored
    assert "rollout" not in service.resource["status"]


async def test_new_keys_roll_the_fleet(service: Service) -> None:
    """Nobody knows the old ones: an heir found the Secret gone."""
    await settled(service)
    del service.api.stored[f"/api/v1/namespaces/default/secrets/{NAME}-internal"]
    await service.state.aclose()
    service.state = ServiceState()
    writes = await service.tick()
    assert writes.count("create pods") > 0
    assert (
        service.resource["status"]["rollout"]["revision"] != service.resource["status"]["revision"]
    )


async def test_orphaned_workers_are_owned_again_once(service: Service) -> None:
    (pod, *_) = service.reconciler.pods("default", NAME, Component.WORKER)
    del pod["metadata"]["ownerReferences"]  # type: ignore[attr-defined]
    assert (await service.tick()).count(f"merge {NAME}-worker-0") == 1
    assert (await service.tick()).count(f"merge {NAME}-worker-0") == 0


async def test_pods_of_another_owner_are_no_workers_of_ours(service: Service) -> None:
    (pod, *_) = service.reconciler.pods("default", NAME, Component.WORKER)
    pod["metadata"]["ownerReferences"] = [owner_reference(NAME, "earlier")]
    await settled(service)
    assert service.resource["status"]["workers"] == NUM_WORKERS - 1


async def test_a_status_is_written_though_events_are_refused(service: Service) -> None:
    service.api.refuses_events = True
    assert "merge status" in await service.tick()
    assert service.resource["status"]["readyWorkers"] == NUM_WORKERS
    lost = service.reconciler.metrics.events_lost.labels("default", NAME)
    assert lost._value.get() == 1.0, "the decision"


async def test_a_tick_that_fails_says_so_in_the_status_until_one_succeeds(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await settled(service)

    def able() -> tuple[str, str]:
        found = service.resource["status"]["conditions"]
        (able,) = [c for c in found if c["type"] == "AbleToScale"]
        return able["reason"], able["message"]

    error = ApiRefused("PATCH services: 403 Forbidden", status=403, reason="Forbidden")
    service.api.writes.clear()
    merged = await service.api.merge("x", {})
    merged_bodies: list[dict[str, Any]] = []

    async def merge(path: str, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        merged_bodies.append(body)
        return merged

    with monkeypatch.context() as patched:
        patched.setattr(service.api, "merge", merge)
        await service.reconciler.teller.failure(
            service.resource, service.state, error, service.now_s
        )
    (body,) = merged_bodies
    service.resource["status"] |= body["status"]
    service.state.latest = None
    assert able() == (
        "FailedTick",
        "nothing was decided or done: PATCH services: 403 Forbidden",
    )
    assert "create events" in service.api.writes
    assert "merge status" in await service.tick()
    assert able()[0] in ("ReadyForNewScale", "ScaleDownStabilized")


async def told_of_a_failure(service: Service, *, is_lasting: bool) -> dict[str, tuple[str, str]]:
    """(status, reason) of conditions after ticks that failed."""
    error = ApiRefused("GET pods: 403 Forbidden", status=403, reason="Forbidden")
    state = service.state
    shown: list[Any] = []
    service.api.merge, kept = lambda path, body: taken(body), service.api.merge  # type: ignore

    async def taken(body: dict[str, Any]) -> dict[str, Any]:
        shown.append(body["status"])
        return await kept("status", body)

    await service.reconciler.teller.failure(
        service.resource, state, error, service.now_s, is_lasting=is_lasting
    )
    service.api.merge = kept  # type: ignore[method-assign]
    state.latest = None
    return {item["type"]: (item["status"], item["reason"]) for item in shown[0]["conditions"]}


async def test_ready_is_unknown_when_ticks_fail_for_long_or_none_ever_succeeded(
    service: Service,
) -> None:
    found = await told_of_a_failure(service, is_lasting=False)
    assert found["Ready"] == ("Unknown", "FailedTick"), "a new one never had any"
    await settled(service)
    found = await told_of_a_failure(service, is_lasting=False)
    assert found["Ready"] == ("True", "EveryStageServed"), "the next tick may succeed"
    assert found["AbleToScale"] == ("False", "FailedTick")
    found = await told_of_a_failure(service, is_lasting=True)
    assert found["Ready"] == ("Unknown", "FailedTick")


async def test_a_policy_that_is_gone_stays_in_force_when_the_operator_restarts(
    service: Service,
) -> None:
    """Its ConfigMap is what gateways start with: an heir must not write {} into it."""
    personal = {"categories": [{"name": "account", "enabled": False}]}
    metadata = {"name": "desk", "namespace": "default", "resourceVersion": "1", "generation": 1}
    found = [{"metadata": metadata, "spec": personal}]
    service.resource["spec"]["cache"] = {"policyName": "desk"}
    service.reconciler.policies.find = lambda *_: found[0] if found else None
    await settled(service)
    kept = f"/api/v1/namespaces/default/configmaps/{NAME}-cache-policy"
    before = service.api.stored[kept]["data"]
    assert json.loads(before["policy.yaml"]) == personal
    found.clear()
    await service.state.aclose()
    service.state = ServiceState()
    policies = CachePolicies(service.api, lambda *_: None)  # type: ignore[arg-type]
    service.reconciler = replace(service.reconciler, policies=policies)
    await settled(service)
    assert service.api.stored[kept]["data"] == before
    conditions = service.resource["status"]["conditions"]
    (followed,) = [c for c in conditions if c["type"] == "CachePolicyInForce"]
    assert (followed["status"], followed["reason"]) == ("False", "PolicyNotFound")
    assert "the last good policy stays" in followed["message"]


async def test_a_policy_that_never_was_leaves_the_cache_off(service: Service) -> None:
    service.resource["spec"]["cache"] = {"policyName": "mistyped"}
    await settled(service)
    kept = f"/api/v1/namespaces/default/configmaps/{NAME}-cache-policy"
    assert json.loads(service.api.stored[kept]["data"]["policy.yaml"]) == {"enabled": False}


async def test_network_policies_that_are_switched_off_are_taken_away(service: Service) -> None:
    path = f"/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/{NAME}"
    await settled(service)
    assert f"{path}-worker" in service.api.stored
    theirs = {"metadata": {"name": f"{NAME}-head", "uid": "x"}}
    service.api.stored[f"{path}-head"] = theirs
    service.resource["spec"]["network"] = {"policy": False}
    writes = await service.tick()
    deleted = [write for write in writes if write.startswith("delete")]
    assert deleted == [f"delete {NAME}-worker", f"delete {NAME}-gateway"]
    assert service.api.stored[f"{path}-head"] is theirs
    assert await service.tick(1.0) == []
    service.resource["spec"]["network"] = {"policy": True}
    assert f"apply {NAME}-worker" in await service.tick()


async def test_what_a_spec_stops_using_is_taken_away(service: Service) -> None:
    service.resource["spec"]["cache"] = {"policyName": "mistyped"}
    await settled(service)
    policy = f"/api/v1/namespaces/default/configmaps/{NAME}-cache-policy"
    account = f"/api/v1/namespaces/default/serviceaccounts/{NAME}-fleet"
    assert {policy, account} <= service.api.stored.keys()
    service.resource["spec"]["cache"] = {}
    assert f"delete {NAME}-cache-policy" in await service.tick()
    assert policy not in service.api.stored
    service.resource["spec"]["cluster"] = {"serviceAccountName": "ours"}
    await service.tick()
    assert service.resource["status"]["rollout"], "another account is another revision"
    assert account in service.api.stored, "pods that serve may be made with it again"
    service.resource["spec"]["cluster"] = {"serviceAccountName": f"{NAME}-fleet"}
    await service.tick()
    assert account in service.api.stored, "whoever names it keeps it"


async def test_keys_that_were_edited_while_no_operator_ran_roll_the_fleet(service: Service) -> None:
    await settled(service)
    secret = f"/api/v1/namespaces/default/secrets/{NAME}-internal"
    service.api.stored[secret]["data"]["admin-key"] = b64encode(b"edited").decode()
    await service.state.aclose()
    service.state = ServiceState()
    writes = await service.tick()
    assert writes.count("create pods") > 0
    status = service.resource["status"]
    assert status["rollout"]["revision"] != status["revision"]


def unprocessable(words: str) -> ApiRefused:
    return ApiRefused(f"PATCH x: 422 Invalid: {words}", status=422, reason="Invalid")


async def test_a_template_that_the_api_server_refuses_is_told_by_its_field(
    service: Service,
) -> None:
    words = 'Deployment.apps "x" is invalid: spec.template.spec.tolerations[0].operator: ...'
    service.api.refused["deployments/quiet-gateway"] = unprocessable(words)
    first = await service.tick()
    assert first.count("create events") == 2, "the decision and the refusal"
    gateway = next(write for write in first if write.startswith("refused "))
    wanted = "spec.gateway: must make a Deployment that the API server accepts, got:"
    assert ready(service) == ("InvalidSpec", f"{wanted} {words}")
    assert "apply quiet" in first, "the rest is there"
    refusals = [(await service.tick(5.0)).count(gateway) for _ in range(6)]
    assert refusals == [0, 1, 0, 0, 0, 1], "after 10 s, then after 20"
    assert ready(service)[0] == "InvalidSpec"
    service.api.refused.clear()
    for _ in range(9):
        await service.tick(5.0)
    assert ready(service)[0] == "EveryStageServed"


async def test_pods_that_the_api_server_refuses_are_told_as_well(service: Service) -> None:
    service.resource["spec"]["roles"] = [{"name": "Decode", "minWorkers": 5}]
    service.resource["spec"]["pool"]["maxWorkers"] = 8
    service.api.refused["pods"] = unprocessable('Pod "quiet-worker-4" is invalid: spec.x: ...')
    assert "refused pods" in await service.tick()
    assert ready(service)[0] == "InvalidSpec"
    assert ready(service)[1].startswith("spec.pool: must make a Pod that the API server accepts")
    assert "refused pods" not in await service.tick(1.0)
    assert ready(service)[0] == "InvalidSpec"


async def test_a_name_that_no_fleet_can_be_made_from_is_refused_without_a_webhook(
    service: Service,
) -> None:
    service.resource["metadata"]["name"] = "4you"
    assert await service.tick() == ["merge status", "create events"]
    assert ready(service)[0] == "InvalidSpec"
    assert ready(service)[1].startswith("metadata.name: must have at most 40")
    assert await service.tick() == []


async def test_a_last_good_spec_that_is_good_no_more_leaves_the_fleet_as_it_is(
    service: Service,
) -> None:
    await settled(service)
    service.resource["spec"] = {**service.resource["spec"], "model": {"uri": "ftp://x"}}
    assert "merge status" in await service.tick()
    assert ready(service)[0] == "InvalidSpec"
    assert service.resource["status"]["readyWorkers"] == NUM_WORKERS, "followed all the same"
    kept = service.resource["status"]["lastGoodSpec"]
    service.resource["status"]["lastGoodSpec"] = {**kept, "model": {"uri": "ftp://y"}}
    writes = await service.tick()
    assert writes == ["merge status", "create events"]
    assert "spec.model.uri" in ready(service)[1]
    assert "status.lastGoodSpec.model.uri" in ready(service)[1]
    assert await service.tick() == []
