"""Two releases of the chart that watch the same namespaces: one leads, and its heir takes over."""

import signal
from pathlib import Path

import pytest

from epidote_operator.kube.api import KubeApi
from epidote_operator.testing.cluster import LocalCluster
from epidote_operator.testing.fixtures import IMAGE
from epidote_operator.testing.operator_process import OperatorProcess
from epidote_operator.testing.service_story import (
    NAMESPACE,
    service_manifest,
    service_of_its_own,
    until_true,
)

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("cluster")]

NAME = "shared"
POLICY = f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies/{NAME}-worker"


class Release(OperatorProcess):
    """The operator of a release in `namespace` of its own, which watches `watched`."""

    def __init__(self, cluster: LocalCluster, folder: Path, namespace: str, watched: str) -> None:
        self.namespace = namespace
        settings = {"NAMESPACE": namespace, "NAMESPACES": watched, "LEASE_SECONDS": "15"}
        super().__init__(cluster.kubeconfig, folder / f"{namespace}.log", settings)

    async def leads(self) -> bool:
        return "epidote_operator_leads 1.0" in await self._page("/metrics")

    async def stands_by(self) -> bool:
        """Its metric says so, and who asks whether it is ready is told why."""
        told = await self._page("/readyz")
        shown = "epidote_operator_stands_by 1.0" in await self._page("/metrics")
        return shown and told.startswith("ok, standing by: the lease ")

    async def _page(self, path: str) -> str:
        answer = await self.asked(path)
        return "" if answer is None else answer.text


async def operator_namespace(api: KubeApi) -> str:
    """Of the operator that wrote the service's network policy last."""
    policy = await api.get(POLICY)
    if policy is None:
        return ""
    peers = policy["spec"]["ingress"][0]["from"]
    selectors = [peer["namespaceSelector"] for peer in peers if "namespaceSelector" in peer]
    return str(selectors[0]["matchLabels"]["kubernetes.io/metadata.name"])


async def test_of_two_releases_one_acts_until_it_is_gone(
    cluster: LocalCluster, api: KubeApi, tmp_path: Path
) -> None:
    for namespace in ("release-a", "release-b"):
        await api.apply(
            f"/api/v1/namespaces/{namespace}",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        )
    both = [
        Release(cluster, tmp_path, "release-a", ""),
        Release(cluster, tmp_path, "release-b", NAMESPACE),
    ]
    leading: list[Release] = []

    async def one_leads() -> bool:
        leading[:] = [release for release in both if await release.leads()]
        return len(leading) == 1

    try:
        async with service_of_its_own(api, service_manifest(NAME, IMAGE)):
            await until_true(one_leads, "one of them leads")
            (leader,) = leading
            (heir,) = [release for release in both if release is not leader]
            await until_true(heir.stands_by, "the other one says that it stands by")
            assert f"{leader.namespace}/epidote-operator" in heir.log.read_text()

            async def acted() -> bool:
                return await operator_namespace(api) != ""

            await until_true(acted, "the service has its objects")
            assert await operator_namespace(api) == leader.namespace
            assert not await heir.leads()

            leader.end(signal.SIGTERM)
            await until_true(heir.leads, "given up, the lease is followed by the other's")
            assert not await heir.stands_by()

            async def took_over() -> bool:
                return await operator_namespace(api) == heir.namespace

            await until_true(took_over, "and it acts")
    finally:
        for release in both:
            release.end(signal.SIGKILL)
