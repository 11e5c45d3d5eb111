"""What a tick writes: nothing where nothing changed, one status where something did."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from epidote_operator.resources.labels import Component
from epidote_operator.status.persistence import MEMORY_S
from epidote_operator.testing.tick_cost import part_of
from epidote_operator.testing.ticked_service import NAME, TickedService, ticked_service


@pytest.fixture
async def service() -> AsyncIterator[TickedService]:
    async with ticked_service() as made:
        yield made


async def test_a_service_at_rest_costs_no_call(service: TickedService) -> None:
    await service.settle()
    for _ in range(3):
        assert await service.tick(1.0) == []
        assert service.api.reads == []


async def test_at_rest_the_planners_memory_alone_is_written_once_a_minute(
    service: TickedService,
) -> None:
    await service.settle()
    writes = [await service.tick(MEMORY_S / 6) for _ in range(12)]
    assert sum(map(len, writes)) == 2
    assert {line for lines in writes for line in lines} == {"merge status"}


async def test_figures_that_change_cost_one_write(service: TickedService) -> None:
    await service.settle()
    service.counts["step"] = 7
    for _ in range(3):
        await service.tick()
    assert await service.tick() == ["merge status"]
    assert service.api.reads == []


async def test_another_number_of_workers_touches_the_disruption_budget_alone(
    service: TickedService,
) -> None:
    await service.settle()
    service.resource["status"]["keptWorkers"] = {"encode": 1, "decode": 1}
    assert "apply quiet-worker" in (writes := await service.tick(1.0))
    assert [line for line in writes if line.startswith("apply")] == ["apply quiet-worker"]
    assert service.api.reads == []


@pytest.mark.parametrize("part", [Component.GATEWAY, Component.HEAD])
async def test_a_deployment_of_which_no_pod_stays_is_applied_again_at_once(
    service: TickedService, part: Component
) -> None:
    """Somebody deleted it: the five minutes until everything is looked after serve nobody."""
    await service.settle()
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


async def test_network_policies_that_are_switched_off_are_taken_away(
    service: TickedService,
) -> None:
    path = f"/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/{NAME}"
    await service.settle()
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


async def test_what_a_spec_stops_using_is_taken_away(service: TickedService) -> None:
    service.resource["spec"]["cache"] = {"policyName": "mistyped"}
    await service.settle()
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
