"""This file is about the Job that runs a LoadTest, and the ConfigMap with its configuration."""

from typing import Any

import yaml

from epidote_operator.resources.fleet_values import Defaults, Manifest, owner_reference
from epidote_operator.resources.labels import load_test_labels
from epidote_operator.resources.overlay import merged, with_template
from epidote_operator.resources.pods import USER
from epidote_operator.spec.load_test import LoadTestSpec

CONFIG = "/etc/epidote-loadgen"
TERMINATION_MESSAGE = "/dev/termination-log"  # Kubernetes' own default
GRACE_S = 60  # time to write down what was measured when the Job's deadline has come


def load_test_objects(
    name: str, namespace: str, uid: str, spec: LoadTestSpec, *, url: str, defaults: Defaults
) -> list[Manifest]:
    """ConfigMap and Job of one test against `url` (without `/v1`)."""
    metadata: Manifest = {
        "name": f"{name}-loadtest",
        "namespace": namespace,
        "labels": load_test_labels(name),
        "ownerReferences": [owner_reference(name, uid, LoadTestSpec.kind)],
    }
    config = {**spec.config, "target": {**_target(spec), "url": url}}
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {"run.yaml": yaml.safe_dump(config, sort_keys=False)},
        },
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": metadata,
            "spec": _job(name, metadata["name"], spec, defaults),
        },
    ]


def _target(spec: LoadTestSpec) -> dict[str, Any]:
    given = spec.config.get("target", {})
    return dict(given) if isinstance(given, dict) else {}


def _job(name: str, config_map: str, spec: LoadTestSpec, defaults: Defaults) -> Manifest:
    pod = {"metadata": {"labels": load_test_labels(name)}, "spec": _pod(config_map, spec, defaults)}
    job: Manifest = {
        # A run that ended is a result, whatever its verdict: a second try would hide a miss.
        "backoffLimit": 0,
        "activeDeadlineSeconds": spec.timeout_seconds + GRACE_S,
        "template": with_template(pod, spec.template),
    }
    if spec.ttl_seconds_after_finished is not None:
        job["ttlSecondsAfterFinished"] = spec.ttl_seconds_after_finished
    return job


def load_test_command() -> list[str]:
    """What the Job runs: the report goes to the pod's log, the verdict into its status.

    The pod stays as long as the LoadTest, and so does a failed test's report.
    """
    return [
        *("epidote-loadgen", "run", f"{CONFIG}/run.yaml", "--quiet"),
        *("--json", "-"),
        *("--verdict-file", TERMINATION_MESSAGE),
    ]


def _pod(config_map: str, spec: LoadTestSpec, defaults: Defaults) -> Manifest:
    container: Manifest = {
        "name": "loadgen",
        "image": spec.image or defaults.image,
        "command": load_test_command(),
        "workingDir": "/tmp",
        "env": _environment(spec),
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG, "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    amounts = {"requests": dict(spec.resources.requests), "limits": dict(spec.resources.limits)}
    wanted = {kind: values for kind, values in amounts.items() if values}
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": GRACE_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [merged(container, {"resources": wanted} if wanted else {})],
        "volumes": [
            {"name": "config", "configMap": {"name": config_map}},
            {"name": "scratch", "emptyDir": {}},
        ],
    }


def _environment(spec: LoadTestSpec) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"name": "HOME", "value": "/tmp"}]
    if key := spec.target.api_key:
        reference = {"secretKeyRef": {"name": key.name, "key": key.key}}
        found.append({"name": "EPIDOTE_LOADGEN_API_KEY", "valueFrom": reference})
    return found
