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
GRACE_S = 60  # for what is open, and to write down what was measured
# The load generator ends a run itself when its time is over. This is for one that does not: later
# by the longest that an image may take to come, since the Job's clock begins before its pod's.
LATER_S = 900


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
    config = {
        **spec.config,
        "target": {**dict(spec.config.get("target", {})), "url": url},
        "limits": _limits(spec),
    }
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


def _limits(spec: LoadTestSpec) -> Any:
    """The configuration's, with the end that `timeoutSeconds` sets, or a sooner one of its own.

    What is no object is left for the load generator to refuse.
    """
    given = spec.config.get("limits", {})
    if not isinstance(given, dict):
        return given
    sooner = given.get("run_timeout_s", spec.timeout_seconds)
    if isinstance(sooner, int | float):
        sooner = min(sooner, spec.timeout_seconds)
    return {**given, "run_timeout_s": sooner}


def _job(name: str, config_map: str, spec: LoadTestSpec, defaults: Defaults) -> Manifest:
    pod = {"metadata": {"labels": load_test_labels(name)}, "spec": _pod(config_map, spec, defaults)}
    job: Manifest = {
        # A run that ended is a result, whatever its verdict: a second try would hide a miss.
        "backoffLimit": 0,
        "activeDeadlineSeconds": spec.timeout_seconds + LATER_S,
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
