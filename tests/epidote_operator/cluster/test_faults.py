"""Whatever breaks, and whenever: the fleet ends as asked, and no request fails."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from epidote_core.roles import WorkerState
from epidote_operator.kube import paths
from epidote_operator.kube.errors import KubeError
from epidote_operator.resources.labels import ROLE, SERVICE
from epidote_operator.resources.pod_notes import ASSIGNMENT, SWITCH
from epidote_operator.testing.cluster import LocalCluster
from epidote_operator.testing.fault_story import (
    AT_REST,
    MORE_ENCODERS,
    NAME,
    Story,
    epochs,
    fault_story,
    live_until_killed,
    pid_of,
)
from epidote_operator.testing.service_story import (
    NAMESPACE,
    change_service,
    condition,
    get_service,
    settled,
    until_true,
)

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("cluster"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story(cluster: LocalCluster) -> AsyncIterator[Story]:
    async with fault_story(cluster) as made:
        yield made


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _at_rest(story: Story) -> None:
    await story.at_rest()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["mark_switch", "ask_switch", "settle_switch"])
async def test_operator_killed_around_a_step_of_a_switch(
    story: Story, method: str, when: str
) -> None:
    before, pods = await epochs(story), await story.pods()
    await story.ask_roles(MORE_ENCODERS)
    await live_until_killed(story, method, when)
    heir = story.operator()
    await heir.until(settled(2, 1, 1), "the switch was finished by the next operator")
    await heir.end()
    assert await epochs(story) == before + 1, "one switch, none undone, none made twice"
    assert set(await story.pods()) == set(pods)
    story.nothing_failed()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_operator_killed_around_the_start_of_a_worker(story: Story, when: str) -> None:
    await story.ask_size(5)
    await live_until_killed(story, "add_workers", when)
    heir = story.operator()
    await heir.until(
        lambda status: status.ready_workers == 5 and status.workers == 5, "five workers serve"
    )
    await heir.end()
    assert len(await story.pods()) == 5, "the worker was not started twice"
    story.nothing_failed()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_operator_killed_around_the_removal_of_a_worker(story: Story, when: str) -> None:
    operator = story.operator()
    await story.ask_size(5)
    await operator.until(lambda status: status.ready_workers == 5, "five workers serve")
    await operator.end()
    await story.ask_size(4)
    await live_until_killed(story, "remove_worker", when)
    heir = story.operator()
    await heir.until(
        lambda status: status.ready_workers == 4 and status.workers == 4, "four workers are left"
    )
    for _ in range(4):
        assert (await heir.tick()).workers == 4, "no second one left"
    await heir.end()
    story.nothing_failed()


async def test_api_server_restarts_in_mid_switch(story: Story) -> None:
    before = await epochs(story)
    await story.ask_roles(MORE_ENCODERS)
    operator = story.operator()
    await operator.until(lambda status: bool(status.switches), "a switch began")
    story.cluster.control_plane.kill_apiserver()
    served = story.tally.num_ok
    for _ in range(5):
        with pytest.raises((KubeError, TimeoutError)):
            await operator.tick()
        await asyncio.sleep(0.5)
    story.cluster.control_plane.start_apiserver()
    await story.cluster.control_plane.wait_for_apiserver(story.api)
    await operator.until(settled(2, 1, 1), "the switch was finished")
    await operator.end()
    assert await epochs(story) == before + 1
    assert story.tally.num_ok > served, "the fleet served while the API server was away"
    story.nothing_failed()


async def test_worker_pod_killed_in_mid_switch_is_replaced(story: Story) -> None:
    await story.ask_roles(MORE_ENCODERS)
    operator = story.operator()
    await live_until_killed(story, "settle_switch", "before")
    victim, pod = next(
        (name, pod)
        for name, pod in (await story.pods()).items()
        if SWITCH in pod["metadata"].get("annotations", {})
    )
    uid = pod["metadata"]["uid"]
    os.kill(pid_of(story.cluster.folder, uid), signal.SIGKILL)
    await operator.until(settled(2, 1, 1), "another worker took its place")
    await operator.end()
    after = await story.pods()
    assert victim not in after or after[victim]["metadata"]["uid"] != uid
    story.nothing_failed()


async def test_pod_that_finds_no_room_gives_its_gpu_back(story: Story) -> None:
    """The node has six: of eight workers two can't be placed, and time flies for them."""
    await change_service(
        story.api, NAME, {"scaling": {"startDeadlineSeconds": 600, "startBackoffSeconds": 600}}
    )
    await story.ask_size(8)
    operator = story.operator()
    await operator.until(
        lambda status: status.ready_workers == 6 and status.workers == 8, "two pods wait for room"
    )
    operator.skew_s += 601.0
    status = await operator.until(
        lambda status: status.workers == 6 and status.ready_workers == 6,
        "the two were given up",
    )
    assert condition(status, "AbleToScale") == ("False", "StartBackoff")
    for _ in range(4):
        assert (await operator.tick()).workers == 6, "nobody is asked for while the operator waits"
    await operator.end()
    story.nothing_failed()


async def test_metrics_gone_for_two_minutes_hold_the_fleet(story: Story) -> None:
    operator = story.operator()
    await operator.until(
        lambda status: condition(status, "ScalingActive") == ("True", "ValidMetricFound"),
        "metrics are there",
    )
    pods = await story.pods()
    gateways = operator.state.memory.gateways
    real = gateways.scrape

    async def no_answer(now_s: float) -> dict[str, Any]:
        return {}

    gateways.scrape = no_answer  # type: ignore[method-assign]
    await story.ask_size(5)  # what a planner without metrics must not follow
    for _ in range(12):
        operator.skew_s += 10.0
        status = await operator.tick()
    assert condition(status, "ScalingActive") == ("False", "FailedGetMetricsStale")
    assert condition(status, "Ready")[0] == "True"
    assert {pod["metadata"]["uid"] for pod in pods.values()} <= {
        pod["metadata"]["uid"] for pod in (await story.pods()).values()
    }
    gateways.scrape = real  # type: ignore[method-assign]
    await operator.until(
        lambda status: condition(status, "ScalingActive") == ("True", "ValidMetricFound"),
        "metrics are back",
    )
    await operator.end()
    story.nothing_failed()


async def test_stuck_drain_is_replaced(story: Story) -> None:
    """A worker that says "draining" for ever serves nobody and holds a GPU."""
    await story.ask_roles(MORE_ENCODERS)
    await live_until_killed(story, "ask_switch", "before")
    pods = await story.pods()
    (name,) = [n for n, pod in pods.items() if SWITCH in pod["metadata"].get("annotations", {})]
    operator = story.operator(stuck_s=600.0)
    gateways = operator.state.memory.gateways
    real = gateways.fleet

    async def says_it_drains(now_s: float) -> Any:
        report, client, why = await real(now_s)
        if report is not None:
            workers = tuple(
                replace(worker, state=WorkerState.DRAINING) if worker.worker_id == name else worker
                for worker in report.workers
            )
            report = replace(report, workers=workers)
        return report, client, why

    gateways.fleet = says_it_drains  # type: ignore[method-assign]
    operator.skew_s = 30.0
    status = await operator.tick()
    assert [switch.state.value for switch in status.switches] == ["Draining"], "still patient"
    operator.skew_s = 30.0 + 600.0  # the drain's deadline, and the patience after it
    await operator.tick()
    gateways.fleet = real  # type: ignore[method-assign]
    await operator.until(settled(2, 1, 1), "the stuck worker was replaced")
    await operator.end()
    uids = {pod["metadata"]["uid"] for pod in (await story.pods()).values()}
    assert pods[name]["metadata"]["uid"] not in uids
    story.nothing_failed()


async def test_a_worker_that_lost_the_label_it_is_found_by_is_found_again(story: Story) -> None:
    pods, before = await story.pods(), await epochs(story)
    operator = story.operator()
    await operator.until(settled(*AT_REST), "the fleet is at rest")
    await story.api.merge(
        paths.pod(NAMESPACE, next(iter(pods))), {"metadata": {"labels": {SERVICE: None}}}
    )

    async def is_whole() -> bool:
        await operator.tick()
        return set(await story.pods()) == set(pods)

    await until_true(is_whole, "the label is there again")
    await operator.until(settled(*AT_REST), "nobody else was made")
    await operator.end()
    assert set(await story.pods()) == set(pods)
    assert await epochs(story) == before
    story.nothing_failed()


async def test_others_write_over_pods_and_status(story: Story) -> None:
    before = await epochs(story)
    await story.ask_roles(MORE_ENCODERS)
    operator = story.operator()
    await operator.until(lambda status: bool(status.switches), "a switch began")
    for number, name in enumerate(await story.pods()):
        await story.api.merge(
            paths.pod(NAMESPACE, name),
            {
                "metadata": {
                    "labels": {ROLE: None if number % 2 else "prefill"},
                    "annotations": {ASSIGNMENT: "nonsense", SWITCH: "{}"},
                }
            },
        )
    spoilt = {"status": {"memory": {"version": 1, "modalities": "?"}, "workers": 99}}
    await story.api.merge(f"{paths.service(NAMESPACE, NAME)}/status", spoilt)
    await operator.end()
    heir = story.operator()
    await heir.until(settled(2, 1, 1), "the fleet is as asked")
    labels = [pod["metadata"]["labels"].get(ROLE) for pod in (await story.pods()).values()]
    assert sorted(filter(None, labels)) == ["decode", "encode", "encode", "prefill"]
    assert (await get_service(story.api, NAME))["status"]["workers"] == 4
    await heir.end()
    assert await epochs(story) == before + 1, "the switch under way, and none besides"
    story.nothing_failed()


async def test_a_revision_that_never_comes_up_is_given_up_and_the_old_one_serves_on(
    story: Story,
) -> None:
    pods = await story.pods()
    rollout = {"progressDeadlineSeconds": 600, "maxSurgeWorkers": 1}
    await change_service(story.api, NAME, {"rollout": rollout})
    operator = story.operator()
    await operator.tick()
    nowhere = {"spec": {"nodeSelector": {"no-node": "has-this"}}}
    await change_service(story.api, NAME, {"pool": {"template": nowhere}})
    await operator.until(
        lambda status: status.workers == len(pods) + 1, "a new worker was asked for"
    )
    operator.skew_s += 601.0
    status = await operator.until(
        lambda status: status.workers == len(pods), "the one that never came up was given up"
    )
    assert condition(status, "Progressing") == ("False", "ProgressDeadlineExceeded")
    assert condition(status, "Ready")[0] == "True"
    for _ in range(3):
        assert (await operator.tick()).workers == len(pods), "nothing more is started"
    await change_service(story.api, NAME, {"pool": {"template": None}})
    status = await operator.until(settled(*AT_REST), "the owner takes the change back")
    assert status.rollout is None
    await operator.end()
    assert set(await story.pods()) == set(pods)
    story.nothing_failed()


@pytest.mark.parametrize(("gpu_budget", "threads"), [(6, 2), (None, 3)])
async def test_another_image_replaces_the_fleet_beside_it(
    story: Story, gpu_budget: int | None, threads: int
) -> None:
    """New head, gateways and workers come up first; then clients move; then the old ones leave.

    The node has six GPUs: one old decoder must leave, by the budget or by the scheduler's word.
    """
    pods = await story.pods()
    operator = story.operator()
    await operator.tick()
    old = (await get_service(story.api, NAME))["status"]["revision"]
    pool = {"cpuThreads": threads, "gpuBudget": gpu_budget}
    await change_service(story.api, NAME, {"pool": pool, "rollout": {"maxSurgeWorkers": 2}})
    status = await operator.until(
        lambda status: status.revision != old and settled(*AT_REST)(status),
        "the new revision serves, and nothing else is left",
    )

    async def nothing_old_is_left() -> bool:
        """Not even a head whose pod went between two looks."""
        await operator.tick()
        found = []
        for group, plural in (("apps/v1", "deployments"), ("v1", "services")):
            path = paths.collection(group, plural, NAMESPACE)
            labels = {"labelSelector": f"epidote.dev/revision={old}"}
            found += (await story.api.request("GET", path, params=labels))["items"]
        return not found

    await until_true(nothing_old_is_left, "head and gateways of the old revision are deleted")
    await operator.end()
    after = await story.pods()
    assert not {pod["metadata"]["uid"] for pod in after.values()} & {
        pod["metadata"]["uid"] for pod in pods.values()
    }
    service = await story.api.request("GET", paths.item("v1", "services", NAMESPACE, NAME))
    assert service["spec"]["selector"]["epidote.dev/revision"] == status.revision
