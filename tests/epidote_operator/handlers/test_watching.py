"""What is watched: our pods and Jobs, filtered by the server; and nothing before our CRDs exist."""

import asyncio
from typing import Any

import kopf
import pytest
from kopf._cogs.structs.references import Resource

from epidote_operator.handlers.indexing import narrow, slim_pod
from epidote_operator.handlers.kinds import DISCOVERY, MissingKinds, demand_kinds
from epidote_operator.kube.errors import ApiUnreachable


@pytest.mark.parametrize(
    ("group", "version", "plural", "selector"),
    [
        ("", "v1", "pods", ["epidote.dev/service"]),
        ("batch", "v1", "jobs", ["epidote.dev/load-test"]),
        ("serving.epidote.dev", "v1alpha1", "multimodalservices", []),
    ],
)
def test_the_server_is_asked_for_what_is_ours_alone(
    group: str, version: str, plural: str, selector: list[str]
) -> None:
    settings = kopf.OperatorSettings()
    narrow(settings)
    resource = Resource(group, version, plural, preferred=True)
    assert list(settings.watching.label_selectors.collect(resource)) == selector
    assert settings.scanning.disabled, "no right to watch every CRD of the cluster"


def test_a_kept_pod_says_whose_it_is() -> None:
    metadata = {"name": "p", "ownerReferences": [{"uid": "u"}], "managedFields": ["much"]}
    kept = slim_pod({"metadata": metadata, "spec": {"much": "more"}})
    assert kept == {
        "metadata": {"name": "p", "ownerReferences": [{"uid": "u"}]},
        "status": {},
    }


class Discovery:
    """An API server that serves the kinds from its third answer on."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def get(self, path: str) -> Any:
        assert path == DISCOVERY
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


KINDS = ("multimodalservices", "cachepolicies", "loadtests")
SERVED = {"resources": [{"name": kind} for kind in (*KINDS, "multimodalservices/status")]}


async def test_kinds_are_waited_for() -> None:
    api: Any = Discovery(ApiUnreachable("away"), None, {"resources": []}, SERVED)
    await demand_kinds(api, asyncio.Event(), pause_s=0.0)
    assert api.answers == [SERVED]


async def test_without_our_kinds_the_operator_does_not_start() -> None:
    api: Any = Discovery({"resources": [{"name": "loadtests"}]})
    with pytest.raises(MissingKinds, match="multimodalservices, cachepolicies, found none"):
        await demand_kinds(api, asyncio.Event(), patience_s=0.0)


async def test_waiting_ends_with_the_operator() -> None:
    stop = asyncio.Event()
    stop.set()
    api: Any = Discovery(None)
    await demand_kinds(api, stop, pause_s=0.0)


def test_a_kept_pod_says_how_often_its_containers_were_restarted() -> None:
    """A head that restarted is another head."""
    statuses = [{"name": "head", "restartCount": 2, "image": "x", "state": {"much": "more"}}]
    kept = slim_pod({"metadata": {"name": "p"}, "status": {"containerStatuses": statuses}})
    assert kept["status"] == {"containerStatuses": [{"name": "head", "restartCount": 2}]}
