"""Generated resources of all kinds, really created: the good ones are served, the bad ones refused.

The full thousand: `python -m epidote_operator.testing.many_resources`.
"""

from pathlib import Path

import pytest

from epidote_operator.kube.api import KubeApi
from epidote_operator.testing.cluster import LocalCluster
from epidote_operator.testing.many_resources import play

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("cluster"),
]

COUNT = 150  # what two cores do in less than a minute


async def test_the_valid_are_reconciled_and_leave_nothing_the_invalid_refused_by_field(
    cluster: LocalCluster, api: KubeApi, tmp_path: Path
) -> None:
    tally = await play(api, cluster.kubeconfig, tmp_path, count=COUNT, wave=COUNT)
    assert tally.wrong == []
    assert (tally.num_reconciled, tally.num_refused) == (COUNT // 2, COUNT // 2)
    assert tally.num_objects > 5 * COUNT // 2
