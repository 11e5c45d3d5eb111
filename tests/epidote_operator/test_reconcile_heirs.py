"""Keys and cache policies that are lost: what an operator still knows, and what its heir finds."""

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from epidote_operator.cache_policies import CachePolicies
from epidote_operator.testing.ticked_service import NAME, TickedService, ticked_service


@pytest.fixture
async def service() -> AsyncIterator[TickedService]:
    async with ticked_service() as made:
        yield made


async def test_a_lost_secret_is_made_again_while_the_operator_lives(service: TickedService) -> None:
    await service.settle()
    path = f"/api/v1/namespaces/default/secrets/{NAME}-internal"
    del service.api.stored[path]
    writes = await service.tick(400.0)
    assert (writes.count("create secrets"), writes.count("create events")) == (1, 1)
    assert path in service.api.stored
    assert "rollout" not in service.resource["status"]


async def test_new_keys_roll_the_fleet(service: TickedService) -> None:
    """Nobody knows the old ones: an heir found the Secret gone."""
    await service.settle()
    del service.api.stored[f"/api/v1/namespaces/default/secrets/{NAME}-internal"]
    await service.restart()
    writes = await service.tick()
    assert writes.count("create pods") > 0
    assert (
        service.resource["status"]["rollout"]["revision"] != service.resource["status"]["revision"]
    )


async def test_keys_that_were_edited_while_no_operator_ran_roll_the_fleet(
    service: TickedService,
) -> None:
    await service.settle()
    secret = f"/api/v1/namespaces/default/secrets/{NAME}-internal"
    service.api.stored[secret]["data"]["admin-key"] = b64encode(b"edited").decode()
    await service.restart()
    writes = await service.tick()
    assert writes.count("create pods") > 0
    status = service.resource["status"]
    assert status["rollout"]["revision"] != status["revision"]


async def test_a_policy_that_is_gone_stays_in_force_when_the_operator_restarts(
    service: TickedService,
) -> None:
    """Its ConfigMap is what gateways start with: an heir must not write {} into it."""
    personal = {"categories": [{"name": "account", "enabled": False}]}
    metadata = {"name": "desk", "namespace": "default", "resourceVersion": "1", "generation": 1}
    found = [{"metadata": metadata, "spec": personal}]
    service.resource["spec"]["cache"] = {"policyName": "desk"}
    service.reconciler.policies.find = lambda *_: found[0] if found else None
    await service.settle()
    kept = f"/api/v1/namespaces/default/configmaps/{NAME}-cache-policy"
    before = service.api.stored[kept]["data"]
    assert json.loads(before["policy.yaml"]) == personal
    found.clear()
    await service.restart()
    policies = CachePolicies(service.api, lambda *_: None)  # type: ignore[arg-type]
    service.reconciler = replace(service.reconciler, policies=policies)
    await service.settle()
    assert service.api.stored[kept]["data"] == before
    conditions = service.resource["status"]["conditions"]
    (followed,) = [c for c in conditions if c["type"] == "CachePolicyInForce"]
    assert (followed["status"], followed["reason"]) == ("False", "PolicyNotFound")
    assert "the last good policy stays" in followed["message"]


async def test_a_policy_that_never_was_leaves_the_cache_off(service: TickedService) -> None:
    service.resource["spec"]["cache"] = {"policyName": "mistyped"}
    await service.settle()
    kept = f"/api/v1/namespaces/default/configmaps/{NAME}-cache-policy"
    assert json.loads(service.api.stored[kept]["data"]["policy.yaml"]) == {"enabled": False}
