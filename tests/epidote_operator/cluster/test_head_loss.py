"""Ray's head killed under a real fleet: it comes back by itself, in a bounded time."""

import asyncio
import contextlib
import os
import signal
import time

import pytest

from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi
from epidote_operator.resources.pod_notes import HEAD
from epidote_operator.spec.service_status import MultimodalServiceStatus
from epidote_operator.testing.client_traffic import traffic
from epidote_operator.testing.cluster import LocalCluster
from epidote_operator.testing.demo import processes_of
from epidote_operator.testing.service_story import (
    NAMESPACE,
    REAL_PATIENCE_S,
    OperatorLife,
    demo_sample,
    service_of_its_own,
    settled,
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

# As small as a fleet can be. Nothing is decided: whoever is lost comes back all the same.
FLEET = demo_sample("headless", 3, mode="Off")


async def test_a_fleet_comes_back_by_itself_when_its_head_became_another_one(
    cluster: LocalCluster, api: KubeApi
) -> None:
    async with service_of_its_own(api, FLEET) as name:
        operator = OperatorLife(api, name)
        await operator.until(settled(1, 1, 1), "the fleet serves", patience_s=REAL_PATIENCE_S)
        before = await worker_pods(api, name)

        def url() -> str:
            """Of the gateway that answered the operator last, or any that it knows."""
            return next(iter(operator.state.memory.gateways.all), "http://127.0.0.1:9")

        async with traffic(url, model=name) as tally:
            began_s = time.monotonic()
            for pid in processes_of(cluster, f"{name}-head"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await operator.until(
                another_head, "the head is another one", patience_s=REAL_PATIENCE_S
            )
            await operator.until(settled(1, 1, 1), "the fleet is back", patience_s=REAL_PATIENCE_S)
            back_s = time.monotonic() - began_s
            num_ok = tally.num_ok
            async with asyncio.timeout(REAL_PATIENCE_S):
                while tally.num_ok < num_ok + 4:
                    await asyncio.sleep(0.1)
        print(f"back after {back_s:.0f} s; {tally.num_ok} ok, {len(tally.failures)} failed")
        after = await worker_pods(api, name)
        await operator.end()
        uids = {pod["metadata"]["uid"] for pod in before.values()}
        assert not uids & {pod["metadata"]["uid"] for pod in after.values()}
        assert len({pod["metadata"]["annotations"][HEAD] for pod in after.values()}) == 1
        events = await api.request("GET", paths.collection("v1", "events", NAMESPACE))
        reasons = [e["reason"] for e in events["items"] if e["involvedObject"]["name"] == name]
        assert reasons.count("HeadReplaced") == 1


def another_head(status: MultimodalServiceStatus) -> bool:
    return status.head is not None and status.head.changes == 1
