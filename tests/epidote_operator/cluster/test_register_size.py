"""Somebody else tells a real fleet's register another size: it is the operator's again."""

import pytest

from epidote_core.roles import Role
from epidote_operator.kube.api import KubeApi
from epidote_operator.observe.gateway_client import FleetReport, GatewayClient, GatewayUnreachable
from epidote_operator.spec.service_status import MultimodalServiceStatus
from epidote_operator.testing.service_story import (
    REAL_PATIENCE_S,
    OperatorLife,
    demo_sample,
    service_of_its_own,
    settled,
    until_true,
)

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("cluster"),
]


async def test_a_register_that_was_scaled_by_hand_has_its_size_and_roles_again(
    api: KubeApi,
) -> None:
    """`epidote scale 1`: one worker serves every stage until the others have work again."""
    async with service_of_its_own(api, demo_sample("resized", 3)) as name:
        operator = OperatorLife(api, name)
        await operator.until(settled(1, 1, 1), "the fleet serves", patience_s=REAL_PATIENCE_S)
        url = next(iter(operator.state.memory.gateways.all))
        gateway = GatewayClient(url, operator.state.kept.admin_key)

        async def seen() -> FleetReport:
            return await gateway.fleet(0.0)

        async def is_one() -> bool:
            """No operator looks meanwhile."""
            try:
                return [worker.role for worker in (await seen()).workers] == [Role.ALL]
            except GatewayUnreachable:  # two workers end on two cores: not within its seconds
                return False

        await gateway.set_num_workers(1)
        await until_true(is_one, "one worker is left")
        status: MultimodalServiceStatus = await operator.until(
            settled(1, 1, 1), "everybody has their role again", patience_s=REAL_PATIENCE_S
        )
        report = await seen()
        await operator.end()
        await gateway.aclose()
        assert status.ready_workers == 3
        assert report.wanted_workers == 3
        assert sorted(worker.role for worker in report.workers) == sorted(
            (Role.ENCODE, Role.PREFILL, Role.DECODE)
        )
