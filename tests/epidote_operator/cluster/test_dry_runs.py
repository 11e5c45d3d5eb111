"""Templates that only the API server can judge: it is asked before they are stored."""

import time
from typing import Any

import pytest

from epidote_operator.act.dry_runs import DryRuns
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi
from epidote_operator.resources.fleet_values import Defaults
from epidote_operator.testing.service_story import NAMESPACE, service_manifest

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("cluster")]

SERVICES, TESTS = "multimodalservices", "loadtests"
DEADLINE_S = 60.0  # CI's cores are slow; the webhook's own is tested without a server


def service(part: str, template: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = service_manifest("tried", "none")["spec"]
    where = spec
    for name in part.split("."):
        where = where.setdefault(name, {})
    where["template"] = template
    return spec


async def asked(api: KubeApi, plural: str, spec: dict[str, Any]) -> list[str]:
    """The paths that are refused. Nothing is warned of."""
    dry_runs = DryRuns(api=api, defaults=Defaults(), deadline_s=DEADLINE_S)
    ruling = await dry_runs.rule_on(plural, "tried", NAMESPACE, spec)
    assert ruling.warnings == ()
    return [problem.path for problem in ruling.problems]


@pytest.mark.parametrize("part", ["pool", "cluster.head", "gateway"])
@pytest.mark.parametrize(
    ("template", "field"),
    [
        ({"spec": {"dnsPolicy": "Nope"}}, "spec.dnsPolicy"),
        ({"spec": {"hostNetwork": "yes"}}, "spec.hostNetwork"),
        (
            {"spec": {"tolerations": [{"key": "gpu", "operator": "Perhaps"}]}},
            "spec.tolerations[0].operator",
        ),
        (
            {"spec": {"containers": [{"name": "side"}]}},
            "spec.containers[0].image",
        ),
        (
            {"spec": {"volumes": [{"name": "Not_A_Name", "emptyDir": {}}]}},
            "spec.volumes[0].name",
        ),
        ({"metadata": {"labels": {"a": "not a value!"}}}, "metadata.labels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_template_that_makes_no_pod_is_refused_by_its_field(
    api: KubeApi, part: str, template: dict[str, Any], field: str
) -> None:
    spec = service(part, template)
    assert await asked(api, SERVICES, spec) == [f"spec.{part}.template.{field}"]


async def test_a_good_service_is_let_in_and_nothing_is_made(api: KubeApi) -> None:
    pods = paths.collection("v1", "pods", NAMESPACE)
    before = len((await api.request("GET", pods))["items"])
    started_s = time.perf_counter()
    assert await asked(api, SERVICES, service("pool", {"spec": {"nodeSelector": {"a": "b"}}})) == []
    print(f"asked for a service: {1000 * (time.perf_counter() - started_s):.0f} ms")
    assert len((await api.request("GET", pods))["items"]) == before


async def test_annotations_that_cannot_be_are_refused_by_their_field(api: KubeApi) -> None:
    spec = service_manifest("tried", "none")["spec"]
    spec["gateway"] = {"service": {"annotations": {"not a name!": "x"}}}
    assert await asked(api, SERVICES, spec) == ["spec.gateway.service.annotations"]


async def test_a_load_tests_template_is_tried_as_well(api: KubeApi) -> None:
    run = {"arrivals": {"rate": 1}, "classes": {"a": {"kind": "questions"}}}
    spec = {"target": {"url": "http://a"}, "config": run}
    assert await asked(api, TESTS, spec) == []
    spec["template"] = {"spec": {"dnsPolicy": "Nope"}}
    assert await asked(api, TESTS, spec) == ["spec.template.spec.dnsPolicy"]


async def test_an_account_that_is_not_there_yet_is_warned_of(api: KubeApi) -> None:
    spec = service_manifest("tried", "none")["spec"]
    spec["cluster"] = {"serviceAccountName": "later"}
    dry_runs = DryRuns(api=api, defaults=Defaults(), deadline_s=DEADLINE_S)
    ruling = await dry_runs.rule_on(SERVICES, "tried", NAMESPACE, spec)
    assert ruling.problems == ()
    assert all('"later" not found' in warning for warning in ruling.warnings)
    assert len(ruling.warnings) == 3
