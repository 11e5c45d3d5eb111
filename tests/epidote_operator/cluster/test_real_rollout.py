"""A rollout with real workers, on one host's network: the new revision is a fleet of its own."""

import asyncio

import pytest

from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.testing.client_traffic import traffic
from epidote_operator.testing.cluster import LocalCluster
from epidote_operator.testing.node.names import NOBODY
from epidote_operator.testing.service_story import (
    NAMESPACE,
    REAL_PATIENCE_S,
    OperatorLife,
    change_service,
    demo_sample,
    service_of_its_own,
    settled,
    until_true,
    worker_pods,
)

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.xdist_group("cluster"),
]


def fleet() -> Manifest:
    """As small as a fleet can be: nobody encodes. Nothing else is decided meanwhile."""
    document = demo_sample("rolled", 2, mode="Off")
    document["spec"]["model"]["modalities"] = ["Text"]
    document["spec"]["roles"] = [{"name": "Prefill"}, {"name": "Decode"}]
    document["spec"]["rollout"] = {"maxSurgeWorkers": 2}
    return document


class Name:
    """The Service's, as pods find it. Clients know of a gateway until there is another one: on a
    machine that is busy otherwise, probes time out and a Service leads nowhere for a while."""

    def __init__(self, cluster: LocalCluster, service: str) -> None:
        self._hosts = cluster.folder / "pods" / "hosts"
        self._full = f"{service}.{NAMESPACE}.svc"
        self._address = NOBODY

    def __call__(self) -> str:
        for line in self._hosts.read_text().splitlines():
            address, *names = line.split()
            if self._full in names and address != NOBODY:
                self._address = address
        return f"http://{self._address}:8000"


async def test_changed_workers_take_over_without_a_lost_request(
    cluster: LocalCluster, api: KubeApi
) -> None:
    async with service_of_its_own(api, fleet()) as name:
        operator = OperatorLife(api, name)
        before = await operator.until(
            settled(0, 1, 1), "the fleet serves", patience_s=REAL_PATIENCE_S
        )
        old = await worker_pods(api, name)

        address = Name(cluster, name)

        async def leads_somewhere() -> bool:
            return NOBODY not in address()

        await until_true(leads_somewhere, "the gateway is ready by its probe as well")
        async with traffic(address, model=name, pictures=False) as tally:
            await change_service(api, name, {"pool": {"kvBlocks": 384}})
            await operator.until(
                lambda status: status.revision != before.revision and settled(0, 1, 1)(status),
                "the new revision serves alone",
                patience_s=REAL_PATIENCE_S,
            )
            num_ok = tally.num_ok
            async with asyncio.timeout(REAL_PATIENCE_S):
                while tally.num_ok < num_ok + 4:
                    await asyncio.sleep(0.1)
        new = await worker_pods(api, name)
        assert not set(old) & set(new)
        (gateway,) = operator.state.memory.gateways.all.values()
        joined = await gateway.fleet(0.0)
        assert {worker.node_id for worker in joined.workers} == set(new), "they joined their own"
        assert tally.failures == []
        await operator.end()
