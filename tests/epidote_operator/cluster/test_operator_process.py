"""The operator as processes: two of them, one killed without warning, nothing lost."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi
from epidote_operator.spec.service_status import MultimodalServiceStatus
from epidote_operator.testing.cluster import LocalCluster
from epidote_operator.testing.fixtures import IMAGE
from epidote_operator.testing.operator_process import OperatorProcess
from epidote_operator.testing.service_story import (
    NAMESPACE,
    change_service,
    get_service,
    service_manifest,
    service_of_its_own,
    settled,
    until_true,
    worker_pods,
)

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("cluster")]

NAME = "twice"
LEASE = paths.item("coordination.k8s.io/v1", "leases", NAMESPACE, "epidote-operator")


class Process(OperatorProcess):
    """One candidate for the lease."""

    def __init__(self, cluster: LocalCluster, folder: Path, identity: str) -> None:
        self.identity = identity
        settings = {
            "NAMESPACE": NAMESPACE,
            "NAMESPACES": NAMESPACE,
            "IDENTITY": identity,
            "LEASE_SECONDS": "6",
        }
        super().__init__(cluster.kubeconfig, folder / f"{identity}.log", settings)

    async def leads(self) -> bool:
        """By its own metrics."""
        answer = await self.asked("/metrics")
        return answer is not None and "epidote_operator_leads 1.0" in answer.text


@pytest.fixture
async def service(api: KubeApi) -> AsyncIterator[str]:
    async with service_of_its_own(api, service_manifest(NAME, IMAGE)) as name:
        yield name


async def status(api: KubeApi) -> MultimodalServiceStatus:
    resource = await get_service(api, NAME)
    return MultimodalServiceStatus.model_validate(resource.get("status") or {})


async def holder(api: KubeApi) -> str | None:
    """Whom the lease names."""
    lease = await api.request("GET", LEASE)
    return lease["spec"].get("holderIdentity") or None


async def test_of_two_operators_one_acts_and_the_other_takes_over(
    cluster: LocalCluster, api: KubeApi, service: str, tmp_path: Path
) -> None:
    both = [Process(cluster, tmp_path, name) for name in ("one", "two")]
    leading: list[Process] = []

    async def one_leads() -> bool:
        leading[:] = [process for process in both if await process.leads()]
        return [process.identity for process in leading] == [await holder(api)]

    try:

        async def has_served() -> bool:
            now = await status(api)
            return bool(now.conditions) and settled(1, 1, 2)(now)

        await until_true(has_served, "the fleet serves")
        pods = await worker_pods(api, NAME)
        assert len(pods) == 4, "two operators started no more workers than one"
        await until_true(one_leads, "one of them leads, and holds the lease")
        (leader,) = leading
        (heir,) = [process for process in both if process is not leader]

        leader.end(signal.SIGKILL)
        await change_service(
            api,
            NAME,
            {
                "roles": [
                    {"name": "Encode", "minWorkers": 2},
                    {"name": "Decode", "minWorkers": 1, "maxWorkers": 1},
                ]
            },
        )
        await until_true(heir.leads, "the other one takes over")

        async def has_switched() -> bool:
            return settled(2, 1, 1)(await status(api))

        await until_true(has_switched, "the heir carries on")
        assert set(await worker_pods(api, NAME)) == set(pods)

        heir.end(signal.SIGTERM)
        assert not await holder(api), "given back at a polite end"
        assert heir.process.returncode == 0, heir.log.read_text()[-3000:]
        await asyncio.sleep(1.0)
        assert set(await worker_pods(api, NAME)) == set(pods), "the fleet outlives its operators"
    finally:
        for process in both:
            process.end(signal.SIGKILL)


async def test_a_leader_paused_past_its_lease_stands_by_when_it_goes_on(
    cluster: LocalCluster, api: KubeApi, tmp_path: Path
) -> None:
    both = [Process(cluster, tmp_path, name) for name in ("paused", "heir")]
    leading: list[Process] = []

    async def one_leads() -> bool:
        leading[:] = [process for process in both if await process.leads()]
        return len(leading) == 1

    try:
        await until_true(one_leads, "one of them leads")
        (paused,) = leading
        (heir,) = [process for process in both if process is not paused]
        paused.process.send_signal(signal.SIGSTOP)
        await until_true(heir.leads, "the other one takes over")
        paused.process.send_signal(signal.SIGCONT)

        async def stands_by() -> bool:
            ready = await paused.asked("/readyz")
            is_well = ready is not None and ready.is_success
            return is_well and not await paused.leads() and await holder(api) == heir.identity

        await until_true(stands_by, "the paused one is well, and does not lead")
    finally:
        for process in both:
            process.end(signal.SIGKILL)


async def test_what_happened_can_be_read_with_kubectl(api: KubeApi) -> None:
    """Events of the story above: each changed decision was told once."""
    path = paths.collection("v1", "events", NAMESPACE)
    listed = await api.request("GET", path)
    ours = [event for event in listed["items"] if event["involvedObject"]["name"] == NAME]
    told = [(event["reason"], event["message"], event["firstTimestamp"]) for event in ours]
    if not told:
        pytest.skip("the story above was not played in this process")
    assert len(told) == len(set(told))
    assert any(reason == "DemandShifted" for reason, _, _ in told)
