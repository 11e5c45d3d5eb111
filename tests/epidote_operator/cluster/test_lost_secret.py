"""The fleet's keys are lost: put back by whoever knows them, else the fleet rolls to new ones."""

import pytest

from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi
from epidote_operator.testing.client_traffic import traffic
from epidote_operator.testing.fixtures import IMAGE
from epidote_operator.testing.service_story import (
    NAMESPACE,
    OperatorLife,
    service_manifest,
    service_of_its_own,
    settled,
)

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("cluster")]

NAME = "keyless"
SECRET = paths.item("v1", "secrets", NAMESPACE, f"{NAME}-internal")


async def test_lost_keys_are_put_back_or_the_fleet_rolls_to_new_ones(api: KubeApi) -> None:
    # Three of each revision fill the node's six GPUs.
    manifest = service_manifest(NAME, IMAGE, pool={"minWorkers": 3, "maxWorkers": 3})
    async with service_of_its_own(api, manifest):
        operator = OperatorLife(api, NAME)
        before = await operator.until(settled(1, 1, 1), "the fleet serves")
        known = (await api.request("GET", SECRET))["data"]
        address = {"url": next(iter(operator.state.memory.gateways.all))}
        async with traffic(lambda: address["url"]) as tally:
            await api.delete(SECRET)
            operator.skew_s += 600.0  # objects are looked after every few minutes
            healed = await operator.tick()
            assert (await api.request("GET", SECRET))["data"] == known
            assert (healed.revision, healed.rollout) == (before.revision, None)
            await operator.end()

            await api.delete(SECRET)  # nobody knows them now
            heir = OperatorLife(api, NAME, skew_s=operator.skew_s)
            rolled = await heir.until(
                lambda status: status.revision != before.revision, "clients reach the new revision"
            )
            assert rolled.revision != before.revision
            address["url"] = next(iter(heir.state.memory.gateways.all))
            await heir.until(settled(1, 1, 1), "the new fleet alone is there")
            assert (await api.request("GET", SECRET))["data"] != known
        await heir.end()
        assert tally.num_ok
        assert not tally.failures
