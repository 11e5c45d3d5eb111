"""The last good cache policy outlives the operator; without one nothing turns the cache on."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from epidote_operator.cache_policies import OFF, CachePolicies, policy_finding
from epidote_operator.kube import paths
from epidote_operator.resources.cache_config import cache_config_map
from epidote_operator.resources.fleet_values import Fleet
from epidote_operator.spec.cache_policy import PLURAL, PolicyUserStatus
from epidote_operator.spec.parsing import parse_service
from epidote_operator.testing.service_story import service_manifest

PERSONAL = {"categories": [{"name": "default"}, {"name": "account", "enabled": False}]}
BAD = {"categories": [{"name": "default", "ttlSeconds": -1}]}
FLEET = Fleet(
    name="web",
    namespace="ns",
    uid="u",
    spec=parse_service(service_manifest("web", "image", cache={"policyName": "desk"})["spec"]),
    revision="r",
)
CONFIG_MAP = "/api/v1/namespaces/ns/configmaps/web-cache-policy"
STATUS = f"{paths.item(paths.API_VERSION, PLURAL, 'ns', 'desk')}/status"


@dataclass
class PretendApi:
    stored: dict[str, Any] = field(default_factory=dict)
    writes: list[tuple[str, Any]] = field(default_factory=list)

    async def get(self, path: str) -> Any:
        return self.stored.get(path)

    async def merge(self, path: str, body: Any) -> Any:
        self.writes.append((path, body))
        return {"metadata": {"resourceVersion": str(len(self.writes) + 1)}, **body}


@dataclass
class PretendGateway:
    told: list[Any] = field(default_factory=list)

    async def put(self, path: str, body: Any) -> None:
        self.told.append(body["spec"])


def resource(spec: dict[str, Any], **status: Any) -> dict[str, Any]:
    metadata = {"name": "desk", "namespace": "ns", "resourceVersion": "1", "generation": 1}
    return {"metadata": metadata, "spec": spec, "status": status}


def policies(found: dict[str, Any] | None, api: Any = None) -> CachePolicies:
    return CachePolicies(api or PretendApi(), lambda namespace, name: found)  # type: ignore[arg-type]


@pytest.mark.parametrize("now", [None, resource(BAD)], ids=["deleted", "spoilt"])
async def test_an_heir_finds_the_last_good_policy_where_gateways_have_it(
    now: dict[str, Any] | None,
) -> None:
    api = PretendApi({CONFIG_MAP: cache_config_map(FLEET, PERSONAL)})
    heir = policies(now, api)
    assert not heir.judge("ns", "desk").is_known
    recalled = await heir.recall(FLEET)
    judged = heir.judge("ns", "desk", recalled)
    assert (judged.spec, judged.is_known) == (PERSONAL, True)
    assert judged.problem
    gateway: Any = PretendGateway()
    assert await heir.push(judged, {"url": gateway}, {}) == 1
    assert gateway.told == [PERSONAL]


@pytest.mark.parametrize(
    "kept",
    [
        None,
        cache_config_map(FLEET, BAD),
        cache_config_map(FLEET, OFF),
        {**cache_config_map(FLEET, PERSONAL), "data": {"policy.yaml": "{not json"}},
        {"metadata": {"name": "web-cache-policy"}, "data": {"policy.yaml": json.dumps(PERSONAL)}},
    ],
    ids=["nothing", "spoilt", "off", "unreadable", "somebody else's"],
)
async def test_a_policy_that_never_was_turns_no_cache_on(kept: dict[str, Any] | None) -> None:
    """Gateways that run keep what they have; new ones start with what the ConfigMap says: off."""
    never = policies(None, PretendApi({CONFIG_MAP: kept} if kept else {}))
    judged = never.judge("ns", "desk", await never.recall(FLEET))
    assert (judged.spec, judged.is_known) == (OFF, False)
    gateway: Any = PretendGateway()
    assert await never.push(judged, {"url": gateway}, {}) == 0
    assert gateway.told == []
    status, reason, message = policy_finding(judged, PolicyUserStatus(name="web", gateways=1))
    assert (status.value, reason) == ("False", "PolicyNotFound")
    assert "there is no CachePolicy 'desk' in ns; no good one is known" in message


async def test_a_leader_no_more_tells_no_gateway() -> None:
    late = policies(resource(PERSONAL))
    late.may_act = lambda: False
    gateway: Any = PretendGateway()
    assert await late.push(late.judge("ns", "desk"), {"url": gateway}, {}) == 0
    assert gateway.told == []


def named(name: str, policy: str | None) -> dict[str, Any]:
    cache = {"policyName": policy} if policy else {}
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": {"cache": cache}}


async def test_services_that_name_it_no_more_leave_the_policys_status() -> None:
    """One was deleted, one dropped the policy, one stays; the operator is another one by now."""
    users = [{"name": name, "gateways": 1, "applied": 0} for name in ("a", "c1")]
    users.append({"name": "stays", "gateways": 1, "applied": 1})
    found = resource(PERSONAL, services=users)
    api = PretendApi()
    heir = policies(found, api)
    listed = [named("a", None), named("stays", "desk")]
    await heir.tidy([(("ns", "desk"), found)], listed, 0.0)
    ((path, body),) = api.writes
    assert path == STATUS
    assert [user["name"] for user in body["status"]["services"]] == ["stays"]
    (ready,) = body["status"]["conditions"]
    assert (ready["status"], ready["reason"]) == ("True", "Applied")
    await heir.tidy([(("ns", "desk"), found)], listed, 1.0)
    assert len(api.writes) == 1, "nothing is left to forget"


@pytest.mark.parametrize(
    ("spec", "status", "reason"), [(PERSONAL, "True", "Unused"), (BAD, "False", "InvalidSpec")]
)
async def test_a_policy_that_nobody_names_is_judged_once(
    spec: dict[str, Any], status: str, reason: str
) -> None:
    found, api = resource(spec), PretendApi()
    kept = policies(found, api)
    for at_s in (0.0, 10.0):
        await kept.tidy([(("ns", "desk"), found)], [], at_s)
    ((_, body),) = api.writes
    (ready,) = body["status"]["conditions"]
    assert (ready["status"], ready["reason"]) == (status, reason)
    assert body["status"]["observedGeneration"] == 1


async def test_a_service_that_follows_its_last_good_spec_still_names_that_ones_policy() -> None:
    found = resource(PERSONAL, services=[{"name": "a", "gateways": 1, "applied": 1}])
    api = PretendApi()
    service = named("a", None)
    service["status"] = {"lastGoodSpec": {"cache": {"policyName": "desk"}}}
    await policies(found, api).tidy([(("ns", "desk"), found)], [service], 0.0)
    assert api.writes == []
