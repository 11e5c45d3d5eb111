"""What a service becomes: owned, labelled, restricted, and equal for equal specs."""

from collections.abc import Collection, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from epidote_core.roles import Role
from epidote_operator.resources.commands import head_command
from epidote_operator.resources.fleet_objects import revision_objects, shared_objects
from epidote_operator.resources.fleet_values import Defaults, Fleet, Manifest
from epidote_operator.resources.head import (
    gateway_service,
    gateway_url,
    head_deployment,
    head_service,
)
from epidote_operator.resources.kuberay import ray_cluster, with_scale_of
from epidote_operator.resources.labels import ROLE, Component, label_selector, selector
from epidote_operator.resources.pods import worker_pod
from epidote_operator.resources.protection import POLICY_V1, internal_secret
from epidote_operator.resources.revision import revision_of
from epidote_operator.spec.parsing import parse_service
from epidote_operator.testing.faults import Spec
from epidote_operator.testing.generated_services import service
from epidote_operator.testing.manifest_schema import check

MINIMAL: Spec = {
    "model": {"uri": "builtin://demo"},
    "pool": {"maxWorkers": 8},
    "slo": {"ttftMilliseconds": 500, "tpotMilliseconds": 50},
}


def fleet(spec: Spec = MINIMAL, name: str = "chat") -> Fleet:
    parsed, defaults = parse_service(spec), Defaults()
    return Fleet(
        name=name,
        namespace="prod",
        uid="uid-1",
        spec=parsed,
        revision=revision_of(parsed, defaults),
        defaults=defaults,
    )


def changed(part: str, **fields: Any) -> Spec:
    return {**MINIMAL, part: {**MINIMAL.get(part, {}), **fields}}


def key_of(manifest: Manifest) -> tuple[str, str, str]:
    """What tells an object from all others of its namespace."""
    return manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"]


def fleet_objects(
    built: Fleet, *, desired_workers: int, api_versions: Collection[str] = (POLICY_V1,)
) -> list[Manifest]:
    """Everything but the internal Secret and the worker pods."""
    shared = shared_objects(built, desired_workers=desired_workers, api_versions=api_versions)
    return [*shared, *revision_objects(built), gateway_service(built)]


def every_manifest(built: Fleet) -> list[Manifest]:
    objects = fleet_objects(built, desired_workers=3)
    return [
        *(item for item in objects if item["kind"] != "RayCluster"),
        internal_secret(built, admin_key="a", ray_token="b"),
        worker_pod(built, f"{built.name}-w-1", Role.DECODE),
        ray_cluster(built, workers=3),  # of either provider: its pods must be as safe
    ]


def pod_specs(manifest: Any) -> Iterator[Manifest]:
    """Every pod spec anywhere inside a manifest."""
    if isinstance(manifest, dict):
        if isinstance(manifest.get("containers"), list):
            yield manifest
        for value in manifest.values():
            yield from pod_specs(value)
    elif isinstance(manifest, list):
        for value in manifest:
            yield from pod_specs(value)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_every_object_is_owned_labelled_and_named_once(seed: int) -> None:
    built = fleet(service(Random(seed)))
    manifests = every_manifest(built)
    assert len({key_of(item) for item in manifests}) == len(manifests)
    for item in manifests:
        metadata = item["metadata"]
        assert [owner["uid"] for owner in metadata["ownerReferences"]] == ["uid-1"]
        assert metadata["labels"]["epidote.dev/service"] == "chat"
        assert metadata["namespace"] == "prod"
        assert len(metadata["name"]) <= 63


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_every_manifest_is_one_that_kubernetes_knows(seed: int) -> None:
    checked = [check(item) for item in every_manifest(fleet(service(Random(seed))))]
    assert checked.count(False) == 1  # the RayCluster is KubeRay's


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_every_pod_meets_the_restricted_standard(seed: int) -> None:
    """Pod Security Standards, profile `restricted`."""
    found = 0
    for manifest in every_manifest(fleet(service(Random(seed)))):
        for pod in pod_specs(manifest):
            found += 1
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["runAsUser"] > 0
            assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
            assert pod["automountServiceAccountToken"] is False
            assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
            assert not any("hostPath" in volume for volume in pod["volumes"])
            for container in pod["containers"]:
                context = container["securityContext"]
                assert context["allowPrivilegeEscalation"] is False
                assert context["capabilities"] == {"drop": ["ALL"]}
    assert found >= 4


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_every_selector_finds_the_pods_it_is_meant_for(seed: int) -> None:
    built = fleet(service(Random(seed)))
    for manifest in revision_objects(built):
        if manifest["kind"] == "Deployment":
            wanted = manifest["spec"]["selector"]["matchLabels"]
            assert wanted.items() <= manifest["spec"]["template"]["metadata"]["labels"].items()
    pod = worker_pod(built, "w", Role.ENCODE)
    found = selector(built.name, Component.WORKER, built.revision)
    assert found.items() <= pod["metadata"]["labels"].items()


def test_a_worker_asks_for_its_gpus_and_gets_its_role() -> None:
    pod = worker_pod(fleet(changed("pool", gpusPerWorker=2, gpuBudget=16)), "w", Role.ENCODE)
    resources = pod["spec"]["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "2"
    assert pod["metadata"]["labels"][ROLE] == "encode"


def test_a_model_that_is_cut_over_gpus_brings_as_many_to_each_worker() -> None:
    pod = worker_pod(fleet(changed("pool", tensorParallelSize=4)), "w", Role.DECODE)
    limits = pod["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "4"


def test_a_worker_on_the_cpu_asks_for_no_gpu() -> None:
    pod = worker_pod(fleet(changed("pool", device="Cpu")), "w", Role.ALL)
    assert "resources" not in pod["spec"]["containers"][0]


def test_the_grace_period_outlasts_the_drain() -> None:
    built = fleet({**MINIMAL, "scaling": {"drainDeadlineSeconds": 300}})
    pod = worker_pod(built, "w", Role.DECODE)
    assert pod["spec"]["terminationGracePeriodSeconds"] > 300


def test_weights_in_a_claim_are_mounted_and_named() -> None:
    pod = worker_pod(fleet(changed("model", uri="pvc://models/a/b")), "w", Role.DECODE)
    claims = [volume.get("persistentVolumeClaim") for volume in pod["spec"]["volumes"]]
    assert {"claimName": "models", "readOnly": True} in claims
    mounts = pod["spec"]["containers"][0]["volumeMounts"]
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in mounts


def test_head_and_gateway_reach_the_model_as_workers_do() -> None:
    """The head reads its configuration, gateways its tokenizer."""
    built = fleet(changed("model", uri="pvc://models/a/b"))
    for manifest in revision_objects(built):
        for pod in pod_specs(manifest):
            assert "models" in [volume["name"] for volume in pod["volumes"]]


def test_a_texts_fleet_starts_without_an_encoder() -> None:
    text = {"uri": "builtin://smollm2", "modalities": ["Text"]}
    assert "--roles=prefill=1,decode=1" in head_command(fleet({**MINIMAL, "model": text}))
    assert "--roles=encode=1,prefill=1,decode=1" in head_command(fleet())


def test_the_users_template_lies_over_the_worker() -> None:
    template = {
        "metadata": {"labels": {"team": "vision"}, "annotations": {"a": "b"}},
        "spec": {
            "priorityClassName": "serving",
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {"name": "worker", "env": [{"name": "NCCL_DEBUG", "value": "WARN"}]},
                {"name": "side", "image": "example.com/side"},
            ],
        },
    }
    pod = worker_pod(fleet(changed("pool", template=template)), "w", Role.DECODE)
    worker, side = pod["spec"]["containers"]
    assert pod["spec"]["priorityClassName"] == "serving"
    assert {"name": "NCCL_DEBUG", "value": "WARN"} in worker["env"]
    assert {"name": "RAY_AUTH_MODE", "value": "token"} in worker["env"]
    assert side["image"] == "example.com/side"
    assert pod["metadata"]["labels"]["team"] == "vision"
    assert pod["metadata"]["labels"]["epidote.dev/service"] == "chat"
    assert pod["metadata"]["annotations"] == {"a": "b"}


@pytest.mark.parametrize(
    ("spec", "same"),
    [
        (changed("slo", ttftMilliseconds=900), True),
        (changed("pool", maxWorkers=12), True),
        (changed("gateway", replicas=3), True),
        (changed("model", aliases=["other"]), True),
        (changed("model", uri="builtin://smollm2"), False),
        ({**MINIMAL, "image": "example.com/other"}, False),
        (changed("pool", cpuThreads=4), False),
    ],
)
def test_only_what_a_worker_is_made_from_makes_a_revision(spec: Spec, same: bool) -> None:
    assert (fleet(spec).revision == fleet().revision) is same


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_no_live_change_touches_the_head_or_a_workers_making(one: int, other: int) -> None:
    """A head that restarts takes its fleet along."""
    old, donor = service(Random(one)), service(Random(other))
    new = {**old, **{part: donor[part] for part in ("slo", "gateway") if part in donor}}
    new["slo"] = {"ttftMilliseconds": 77, "tpotMilliseconds": 7}
    new["scaling"] = {**old["scaling"], "drainDeadlineSeconds": 77, "dwellSeconds": 7}
    new["rollout"] = {"maxSurgeWorkers": 2}
    before, after = fleet(old), fleet(new)
    assert before.revision == after.revision
    assert head_deployment(before) == head_deployment(after)
    assert head_service(before) == head_service(after)


def test_the_operators_new_default_image_is_a_new_revision() -> None:
    spec = parse_service(MINIMAL)
    assert revision_of(spec, Defaults(image="a:1")) != revision_of(spec, Defaults(image="a:2"))


def test_two_revisions_share_no_object_but_the_service() -> None:
    old, new = fleet(), fleet(changed("model", uri="builtin://smollm2"))
    one = {key_of(item) for item in revision_objects(old)}
    other = {key_of(item) for item in revision_objects(new)}
    assert not one & other
    assert key_of(gateway_service(old)) == key_of(gateway_service(new))
    assert gateway_service(old)["spec"]["selector"] != gateway_service(new)["spec"]["selector"]


def test_keys_reach_the_gateway_by_reference_alone() -> None:
    spec = changed("gateway", apiKeys={"name": "keys", "key": "k"}, settings={"max_queue": "9"})
    text = str(fleet_objects(fleet(spec), desired_workers=3))
    assert "'secretKeyRef': {'name': 'keys', 'key': 'k'}" in text
    assert "{'name': 'EPIDOTE_GATEWAY_MAX_QUEUE', 'value': '9'}" in text


def test_clients_are_limited_to_the_namespaces_given() -> None:
    built = fleet(changed("network", clientNamespaces=["apps"]))
    policies = [
        item for item in fleet_objects(built, desired_workers=3) if item["kind"] == "NetworkPolicy"
    ]
    gateway = next(item for item in policies if item["metadata"]["name"] == "chat-gateway")
    assert "apps" in str(gateway["spec"]["ingress"][-1]["from"])
    worker = next(item for item in policies if item["metadata"]["name"] == "chat-worker")
    assert "apps" not in str(worker)


def test_no_network_policy_when_it_is_switched_off() -> None:
    built = fleet(changed("network", policy=False))
    assert "NetworkPolicy" not in {item["kind"] for item in fleet_objects(built, desired_workers=1)}


def test_an_old_server_gets_the_api_versions_it_knows() -> None:
    objects = fleet_objects(fleet(), desired_workers=3, api_versions=("policy/v1beta1",))
    versions = {i["apiVersion"] for i in objects if i["kind"] == "PodDisruptionBudget"}
    assert versions == {"policy/v1beta1"}


def test_kuberay_gets_one_cluster_with_the_planners_victims() -> None:
    built = fleet({**MINIMAL, "cluster": {"provider": "KubeRay"}})
    cluster = ray_cluster(built, workers=5, victims=["w-3"])
    group = cluster["spec"]["workerGroupSpecs"][0]
    assert (group["replicas"], group["maxReplicas"]) == (5, 8)
    assert group["scaleStrategy"] == {"workersToDelete": ["w-3"]}
    kinds = [i["kind"] for i in revision_objects(built)]
    assert sorted(kinds) == ["Deployment", "RayCluster", "Service"], "no head of our own"


def test_a_ray_cluster_that_is_applied_again_keeps_its_scale() -> None:
    """Else a change of the pod template would send workers away that the planner wants."""
    built = fleet({**MINIMAL, "cluster": {"provider": "KubeRay"}})
    wanted, found = ray_cluster(built, workers=0), ray_cluster(built, workers=5, victims=["w-3"])
    assert with_scale_of(wanted, None) == wanted
    (group,) = with_scale_of(wanted, found)["spec"]["workerGroupSpecs"]
    assert (group["replicas"], group["scaleStrategy"]) == (5, {"workersToDelete": ["w-3"]})
    assert wanted["spec"]["workerGroupSpecs"][0]["replicas"] == 0, "neither is changed"


def test_the_address_is_the_services_own() -> None:
    assert gateway_url(fleet()) == "http://chat.prod.svc.cluster.local:8000/v1"
    assert label_selector({"a": "b"}) == "a=b"


def test_the_placement_sample_spreads_by_labels_that_its_workers_carry() -> None:
    path = Path(__file__).resolve().parents[3] / "crds/samples/placement.yaml"
    sample = yaml.safe_load(path.read_text(encoding="utf-8"))
    pod = worker_pod(fleet(sample["spec"], name=sample["metadata"]["name"]), "w-1", Role.DECODE)
    (constraint,) = pod["spec"]["topologySpreadConstraints"]
    wanted = constraint["labelSelector"]["matchLabels"]
    assert wanted.items() <= pod["metadata"]["labels"].items()
