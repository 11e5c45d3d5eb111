"""What is another's, refused or invalid is told by its name, and the rest of the fleet goes on."""

from collections.abc import AsyncIterator

import pytest

from epidote_operator.kube.errors import ApiRefused
from epidote_operator.resources.fleet_values import owner_reference
from epidote_operator.resources.labels import Component
from epidote_operator.testing.ticked_service import NAME, NUM_WORKERS, TickedService, ticked_service


@pytest.fixture
async def service() -> AsyncIterator[TickedService]:
    async with ticked_service() as made:
        yield made


async def test_a_service_of_a_user_is_left_alone_and_the_fleet_serves_on(
    service: TickedService,
) -> None:
    path = f"/api/v1/namespaces/default/services/{NAME}"
    theirs = {"metadata": {"name": NAME, "uid": "x"}, "spec": {"selector": {"app": "mine"}}}
    service.api.stored[path] = theirs
    writes = await service.tick()
    assert service.api.stored[path] is theirs
    assert f"apply {NAME}-gateway" in writes, "the rest is there"
    assert service.ready()[0] == "NameTaken"
    assert f"Service '{NAME}' must be free" in service.ready()[1]
    assert writes.count("create events") == 2, "the decision, and the warning"
    assert service.resource["status"]["readyWorkers"] == NUM_WORKERS
    await service.settle()
    assert await service.tick(1.0) == [], "it is told once"
    del service.api.stored[path]
    assert await service.tick() == [f"apply {NAME}", "merge status", "create events"]
    assert service.ready()[0] == "EveryStageServed"


async def test_a_secret_of_somebody_else_is_named_and_nothing_is_made(
    service: TickedService,
) -> None:
    path = f"/api/v1/namespaces/default/secrets/{NAME}-internal"
    service.api.stored[path] = {"metadata": {"name": f"{NAME}-internal", "uid": "x"}, "data": {}}
    assert await service.tick() == ["merge status", "create events"]
    assert service.ready()[0] == "NameTaken"
    assert await service.tick() == []


async def test_orphaned_workers_are_owned_again_once(service: TickedService) -> None:
    (pod, *_) = service.reconciler.pods("default", NAME, Component.WORKER)
    del pod["metadata"]["ownerReferences"]  # type: ignore[attr-defined]
    assert (await service.tick()).count(f"merge {NAME}-worker-0") == 1
    assert (await service.tick()).count(f"merge {NAME}-worker-0") == 0


async def test_pods_of_another_owner_are_no_workers_of_ours(service: TickedService) -> None:
    (pod, *_) = service.reconciler.pods("default", NAME, Component.WORKER)
    pod["metadata"]["ownerReferences"] = [owner_reference(NAME, "earlier")]
    await service.settle()
    assert service.resource["status"]["workers"] == NUM_WORKERS - 1


def unprocessable(words: str) -> ApiRefused:
    return ApiRefused(f"PATCH x: 422 Invalid: {words}", status=422, reason="Invalid")


async def test_a_template_that_the_api_server_refuses_is_told_by_its_field(
    service: TickedService,
) -> None:
    words = 'Deployment.apps "x" is invalid: spec.template.spec.tolerations[0].operator: ...'
    service.api.refused["deployments/quiet-gateway"] = unprocessable(words)
    first = await service.tick()
    assert first.count("create events") == 2, "the decision and the refusal"
    gateway = next(write for write in first if write.startswith("refused "))
    wanted = "spec.gateway: must make a Deployment that the API server accepts, got:"
    assert service.ready() == ("InvalidSpec", f"{wanted} {words}")
    assert "apply quiet" in first, "the rest is there"
    refusals = [(await service.tick(5.0)).count(gateway) for _ in range(6)]
    assert refusals == [0, 1, 0, 0, 0, 1], "after 10 s, then after 20"
    assert service.ready()[0] == "InvalidSpec"
    service.api.refused.clear()
    for _ in range(9):
        await service.tick(5.0)
    assert service.ready()[0] == "EveryStageServed"


async def test_pods_that_the_api_server_refuses_are_told_as_well(service: TickedService) -> None:
    service.resource["spec"]["roles"] = [{"name": "Decode", "minWorkers": 5}]
    service.resource["spec"]["pool"]["maxWorkers"] = 8
    service.api.refused["pods"] = unprocessable('Pod "quiet-worker-4" is invalid: spec.x: ...')
    assert "refused pods" in await service.tick()
    assert service.ready()[0] == "InvalidSpec"
    assert service.ready()[1].startswith("spec.pool: must make a Pod that the API server accepts")
    assert "refused pods" not in await service.tick(1.0)
    assert service.ready()[0] == "InvalidSpec"


async def test_a_name_that_no_fleet_can_be_made_from_is_refused_without_a_webhook(
    service: TickedService,
) -> None:
    service.resource["metadata"]["name"] = "4you"
    assert await service.tick() == ["merge status", "create events"]
    assert service.ready()[0] == "InvalidSpec"
    assert service.ready()[1].startswith("metadata.name: must have at most 40")
    assert await service.tick() == []


async def test_a_last_good_spec_that_is_good_no_more_leaves_the_fleet_as_it_is(
    service: TickedService,
) -> None:
    await service.settle()
    service.resource["spec"] = {**service.resource["spec"], "model": {"uri": "ftp://x"}}
    assert "merge status" in await service.tick()
    assert service.ready()[0] == "InvalidSpec"
    assert service.resource["status"]["readyWorkers"] == NUM_WORKERS, "followed all the same"
    kept = service.resource["status"]["lastGoodSpec"]
    service.resource["status"]["lastGoodSpec"] = {**kept, "model": {"uri": "ftp://y"}}
    writes = await service.tick()
    assert writes == ["merge status", "create events"]
    assert "spec.model.uri" in service.ready()[1]
    assert "status.lastGoodSpec.model.uri" in service.ready()[1]
    assert await service.tick() == []
