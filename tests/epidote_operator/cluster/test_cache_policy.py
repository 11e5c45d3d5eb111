"""A CachePolicy on a real cluster: what is applied, the gateways follow, within a tick."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi
from epidote_operator.spec.cache_policy import PLURAL
from epidote_operator.testing.fixtures import IMAGE
from epidote_operator.testing.service_story import (
    NAMESPACE,
    OperatorLife,
    condition,
    service_manifest,
    service_of_its_own,
    settled,
)

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("cluster")]

NAME, POLICY = "cached", "desk"
CONFIG_MAP = paths.item("v1", "configmaps", NAMESPACE, f"{NAME}-cache-policy")
PATH = paths.item(paths.API_VERSION, PLURAL, NAMESPACE, POLICY)


def policy(**changes: Any) -> dict[str, Any]:
    spec = {
        "categories": [{"name": "default", "semantic": False}],
        "requests": {"truncated": True},  # pretend engines never end an answer by themselves
        **changes,
    }
    return {
        "apiVersion": paths.API_VERSION,
        "kind": "CachePolicy",
        "metadata": {"name": POLICY, "namespace": NAMESPACE},
        "spec": spec,
    }


@pytest.fixture
async def service(api: KubeApi) -> AsyncIterator[str]:
    manifest = service_manifest(NAME, IMAGE, cache={"policyName": POLICY})
    async with service_of_its_own(api, manifest) as name:
        yield name
    await api.delete(PATH)


async def test_a_changed_policy_reaches_the_gateway_at_the_next_tick(
    api: KubeApi, service: str
) -> None:
    await api.apply(PATH, policy())
    operator = OperatorLife(api, service)
    await operator.until(settled(1, 1, 2), "the fleet serves")
    (url,) = operator.state.memory.gateways.all
    key = {"Authorization": f"Bearer {operator.state.kept.admin_key}"}
    async with httpx.AsyncClient(base_url=url, headers=key, trust_env=False) as gateway:

        async def asked() -> str:
            message = {"role": "user", "content": "the same question"}
            body = {"model": NAME, "max_tokens": 8, "temperature": 0, "messages": [message]}
            answer = await gateway.post("/v1/chat/completions", json=body, timeout=60.0)
            assert answer.is_success, answer.text
            return answer.headers["x-epidote-cache"].partition(";")[0]

        assert [await asked(), await asked()] == ["miss", "hit"]
        await api.apply(PATH, policy(epoch="2"))
        await operator.tick()
        assert (await gateway.get("/admin/cache/policy")).json()["spec"]["epoch"] == "2"
        assert [await asked(), await asked()] == ["miss", "hit"], "older answers are not served"
        bad = {"categories": [{"name": "default", "volatile": True}] * 2}
        await api.apply(PATH, policy(**bad))
        await operator.tick()
        assert (await gateway.get("/admin/cache/policy")).json()["spec"]["epoch"] == "2"
    status = (await api.request("GET", PATH))["status"]
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    await operator.end()

    for gone in (False, True):  # spoilt, then deleted: each found by an operator that starts
        if gone:
            await api.delete(PATH)
        heir = OperatorLife(api, service)
        seen = await heir.tick()
        reason = "PolicyNotFound" if gone else "InvalidPolicy"
        assert condition(seen, "CachePolicyInForce") == ("False", reason)
        async with httpx.AsyncClient(base_url=url, headers=key, trust_env=False) as gateway:
            assert (await gateway.get("/admin/cache/policy")).json()["spec"]["epoch"] == "2"
        kept = await api.request("GET", CONFIG_MAP)
        assert json.loads(kept["data"]["policy.yaml"])["epoch"] == "2"
        await heir.end()
