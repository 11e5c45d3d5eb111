"""A real control plane for the tests that ask for one, once a session."""

from collections.abc import AsyncIterator, Iterator

import pytest

from epidote_operator.kube.api import KubeApi
from epidote_operator.testing.cluster import LocalCluster
from epidote_operator.testing.fixtures import session_cluster
from epidote_operator.testing.guard import guarded_credentials


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """etcd, API server, controllers, scheduler, and a node that runs pods as processes."""
    with session_cluster() as made:
        yield made


@pytest.fixture
async def api(cluster: LocalCluster) -> AsyncIterator[KubeApi]:
    """The test cluster's administrator."""
    async with KubeApi.connected(guarded_credentials(cluster.kubeconfig)) as connected:
        yield connected


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every wait of a cluster test ends by itself and says for what it waited: that comes first."""
    for item in items:
        if item.get_closest_marker("cluster") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))
