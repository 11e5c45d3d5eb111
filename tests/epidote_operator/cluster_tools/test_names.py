"""Names of Services on the test node: they lead where endpoints would."""

from typing import Any

import pytest

from epidote_operator.testing.node.names import HEADER, NOBODY, hosts

LABELS = {"app": "gateway"}
OLD, NEW = "2026-11-21T10:00:00Z", "2026-11-21T10:05:00Z"


def service(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "demo", "namespace": "prod"},
        "spec": {"selector": LABELS, "clusterIP": "10.0.0.7", **spec},
    }


def pod(address: str, created: str, *, is_ready: bool, namespace: str = "prod") -> Any:
    metadata = {"namespace": namespace, "creationTimestamp": created, "labels": LABELS}
    return {"metadata": metadata}, address, is_ready


def address_of(text: str) -> str:
    """Where the Service's name leads; "": it is unknown."""
    lines = text.removeprefix(HEADER).splitlines()
    return lines[0].split()[0] if lines else ""


@pytest.mark.parametrize(
    ("old_is_ready", "new_is_ready", "leads_to"),
    [(True, False, "127.1.0.3"), (True, True, "127.1.0.4"), (False, False, NOBODY)],
    ids=["in the middle of a roll", "both ready", "none ready: refused"],
)
def test_a_services_name_leads_to_the_newest_pod_that_is_ready(
    old_is_ready: bool, new_is_ready: bool, leads_to: str
) -> None:
    pods = [
        pod("127.1.0.4", NEW, is_ready=new_is_ready),
        pod("127.1.0.3", OLD, is_ready=old_is_ready),
    ]
    text = hosts([service()], pods)
    assert address_of(text) == leads_to
    assert "demo.prod.svc.cluster.local" in text


def test_a_headless_service_publishes_pods_that_are_not_ready_only_if_it_asks_for_them() -> None:
    pods = [pod("127.1.0.3", OLD, is_ready=False)]
    asking = service(clusterIP="None", publishNotReadyAddresses=True)
    assert address_of(hosts([asking], pods)) == "127.1.0.3"
    assert address_of(hosts([service(clusterIP="None")], pods)) == ""


def test_pods_of_other_namespaces_and_services_without_selectors_are_left_out() -> None:
    elsewhere = [pod("127.1.0.3", OLD, is_ready=True, namespace="dev")]
    assert address_of(hosts([service()], elsewhere)) == NOBODY
    assert hosts([service(selector=None)], elsewhere) == HEADER
