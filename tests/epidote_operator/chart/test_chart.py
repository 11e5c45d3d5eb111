"""The chart renders to what Kubernetes knows, for every set of values; bad values are refused."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from epidote_operator.spec.crds import RESOURCES
from epidote_operator.testing.binaries import MissingBinaries
from epidote_operator.testing.client_tools import find_tool
from epidote_operator.testing.manifest_schema import check

CHART = Path(__file__).resolve().parents[3] / "charts/epidote"
CI = sorted((CHART / "ci").glob("*-values.yaml"))
SETS = [[], *([f"--values={path}"] for path in CI)]
IDS = ["defaults", *(path.stem for path in CI)]
Manifest = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        tool = find_tool("helm")
    except MissingBinaries as missing:
        pytest.skip(str(missing))
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)


@cache
def rendered(*arguments: str) -> list[Manifest]:
    done = helm("template", "release", str(CHART), "--namespace=system", *arguments)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [item for item in manifests if item["kind"] == kind]


@pytest.mark.parametrize("arguments", SETS, ids=IDS)
def test_the_chart_has_nothing_to_complain_about(arguments: list[str]) -> None:
    done = helm("lint", "--strict", str(CHART), *arguments)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("arguments", SETS, ids=IDS)
def test_every_manifest_is_one_that_kubernetes_knows(arguments: list[str]) -> None:
    manifests = rendered(*arguments)
    for manifest in manifests:
        check(manifest)
    names = [
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
        for item in manifests
    ]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("arguments", SETS, ids=IDS)
def test_the_operators_pod_is_restricted(arguments: list[str]) -> None:
    (deployment,) = of_kind(rendered(*arguments), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]


def test_crds_are_upgraded_and_outlive_the_release() -> None:
    crds = of_kind(rendered(), "CustomResourceDefinition")
    assert {crd["spec"]["names"]["kind"] for crd in crds} == {item.kind for item in RESOURCES}
    for crd in crds:
        assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_given_namespaces_give_roles_there_and_no_right_anywhere_else() -> None:
    manifests = rendered(
        *("--set=watchNamespaces={a,b}", "--set=webhook.enabled=false"),
        *("--set=rbac.aggregate=false", "--set=rbac.otherReleases=false"),
    )
    assert not of_kind(manifests, "ClusterRole")
    assert not of_kind(manifests, "ClusterRoleBinding")
    roles = of_kind(manifests, "Role")
    assert {role["metadata"]["namespace"] for role in roles} == {"a", "b", "system"}


def test_a_right_that_the_operator_has_no_use_for_is_not_given() -> None:
    """`cluster/test_operator_rights.py` tries that these suffice."""
    wide = {"get", "create", "patch", "delete"}
    expected = {
        "multimodalservices": {"get", "list", "watch"},
        "cachepolicies": {"get", "list", "watch"},
        "loadtests": {"get", "list", "watch"},
        "multimodalservices/status": {"patch"},
        "cachepolicies/status": {"patch"},
        "loadtests/status": {"patch"},
        "multimodalservices/finalizers": {"update"},
        "loadtests/finalizers": {"update"},
        "pods": wide | {"list", "watch"},
        "pods/log": {"get"},
        "services": wide | {"list"},
        "serviceaccounts": wide,
        "configmaps": wide,
        "secrets": {"get", "create"},
        "events": {"create"},
        "deployments": wide | {"list"},
        "jobs": wide | {"list", "watch"},
        "poddisruptionbudgets": wide,
        "networkpolicies": wide,
    }
    ray = {"rayclusters": wide | {"list"}}
    for arguments, wanted in (((), expected), (("--set=kuberay.enabled=true",), expected | ray)):
        roles = of_kind(rendered(*arguments), "ClusterRole")
        (fleets,) = [role for role in roles if role["metadata"]["name"].endswith("-fleets")]
        found: dict[str, set[str]] = {}
        for rule in fleets["rules"]:
            for resource in rule["resources"]:
                found.setdefault(resource, set()).update(rule["verbs"])
        assert found == wanted


@pytest.mark.parametrize("watched", ["--set=replicas=1", "--set=watchNamespaces={a,b}"])
def test_releases_may_list_each_others_leases_and_nothing_more_of_them(watched: str) -> None:
    rules = [
        rule
        for role in of_kind(rendered(watched), "ClusterRole")
        for rule in role["rules"]
        if "leases" in rule["resources"]
    ]
    assert [rule["verbs"] for rule in rules] == [["list"]]
    everywhere = [*of_kind(rendered("--set=leaderElection=false"), "ClusterRole")]
    assert not any("leases" in rule["resources"] for role in everywhere for rule in role["rules"])


@pytest.mark.parametrize("arguments", SETS, ids=IDS)
def test_no_right_is_a_wildcard_and_secrets_can_not_be_listed(arguments: list[str]) -> None:
    manifests = rendered(*arguments)
    for role in [*of_kind(manifests, "Role"), *of_kind(manifests, "ClusterRole")]:
        for rule in role["rules"]:
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
            if "secrets" in rule["resources"]:
                assert not {"list", "watch", "update", "delete"} & set(rule["verbs"])
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])


def test_neither_crds_nor_namespaces_of_the_cluster_need_be_read() -> None:
    for role in of_kind(rendered("--set=rbac.aggregate=false"), "ClusterRole"):
        for rule in role["rules"]:
            assert not {"customresourcedefinitions", "namespaces", "nodes"} & set(rule["resources"])


def test_every_webhook_asks_the_path_of_its_own_plural() -> None:
    manifests = rendered()
    (configuration,) = of_kind(manifests, "ValidatingWebhookConfiguration")
    (deployment,) = of_kind(manifests, "Deployment")
    told = {
        item["name"]: item.get("value")
        for item in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert configuration["metadata"]["name"] == told["EPIDOTE_WEBHOOK_CONFIGURATION"]
    for webhook in configuration["webhooks"]:
        (plural,) = webhook["rules"][0]["resources"]
        assert webhook["clientConfig"]["service"]["path"] == f"/{plural}"
        assert webhook["clientConfig"]["service"]["name"] == told["EPIDOTE_WEBHOOK_SERVICE"]
        assert str(webhook["timeoutSeconds"]) == told["EPIDOTE_WEBHOOK_TIMEOUT_SECONDS"]
    assert len(configuration["webhooks"]) == len(RESOURCES)


def test_one_replica_has_no_budget_that_would_block_a_node() -> None:
    assert not of_kind(rendered(), "PodDisruptionBudget")
    assert of_kind(rendered("--set=replicas=2"), "PodDisruptionBudget")


def test_helm_test_may_ask_an_operator_whose_metrics_only_some_namespaces_read() -> None:
    manifests = rendered("--set=networkPolicy.metricsNamespaces={monitoring}")
    (policy,) = of_kind(manifests, "NetworkPolicy")
    (asking,) = of_kind(manifests, "Pod")
    (ours,) = [peer for peer in policy["spec"]["ingress"][0]["from"] if "podSelector" in peer]
    wanted = ours["podSelector"]["matchLabels"]
    assert wanted.items() <= asking["metadata"]["labels"].items()
    assert asking["metadata"]["namespace"] == policy["metadata"]["namespace"]


def test_dashboards_are_config_maps_that_grafanas_sidecar_finds() -> None:
    maps = of_kind(rendered("--set=grafanaDashboards.enabled=true"), "ConfigMap")
    assert len(maps) == 3
    assert {item["metadata"]["labels"]["grafana_dashboard"] for item in maps} == {"1"}


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("replicas=many", "replicas"),
        ("webhook.failurePolicy=Maybe", "failurePolicy"),
        ("webhook.certificates.source=CertManager", "issuerRef"),
        ("webhook.certificates.source=Secret", "secretName"),
        ("logLevel=loud", "logLevel"),
        ("replica=2", "replica"),
        ("monitoring.podMonitor.interval=often", "interval"),
        ("replicas=2,leaderElection=false", "replicas"),
    ],
)
def test_a_bad_value_is_refused_by_name(value: str, field: str) -> None:
    done = helm("template", "release", str(CHART), f"--set={value}")
    assert done.returncode != 0
    assert field in done.stderr
