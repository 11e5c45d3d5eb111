"""This file is about an admission webhook on loopback: no Service leads to it on a test cluster."""

from collections.abc import Iterable

from epidote_operator.kube.api import Manifest
from epidote_operator.spec.field_model import GROUP, VERSION

API, PLURAL = "admissionregistration.k8s.io/v1", "validatingwebhookconfigurations"
TIMEOUT_S = 10  # CI's cores are slow


def configuration(name: str, plurals: Iterable[str], *, namespace: str, port: int) -> Manifest:
    """As the chart's, for resources in namespaces labelled `name: namespace`."""
    return {
        "apiVersion": API,
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": f"{plural}.{GROUP}",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "timeoutSeconds": TIMEOUT_S,
                "rules": [
                    {
                        "apiGroups": [GROUP],
                        "apiVersions": [VERSION],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": [plural],
                    }
                ],
                "namespaceSelector": {"matchLabels": {"name": namespace}},
                "clientConfig": {"url": f"https://127.0.0.1:{port}/{plural}"},
            }
            for plural in plurals
        ],
    }
