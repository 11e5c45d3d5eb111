"""A LoadTest's Job on a real cluster: the real load generator in a pod, its verdict in status."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi
from epidote_operator.load_tests import LoadTests
from epidote_operator.resources.fleet_values import Defaults
from epidote_operator.spec.load_test import LoadTestPhase, LoadTestStatus, Verdict
from epidote_operator.testing.binaries import MissingBinaries
from epidote_operator.testing.client_tools import find_tool
from epidote_operator.testing.cluster import LocalCluster
from epidote_operator.testing.real_image import WORKER_IMAGE
from epidote_operator.testing.service_story import NAMESPACE, PATIENCE_S

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("cluster")]

TTFT_MS = 50  # of the mock server, at least
LATE_MS = 20_000  # what no loaded machine makes of it
RUN: dict[str, Any] = {
    "seed": 7,
    "arrivals": {"rate": 20, "duration_s": 3},
    "classes": {"sums": {"kind": "questions", "images": {"count": 0}}},
    "limits": {"max_lateness_s": LATE_MS / 1e3},  # a verdict is wanted of a busy client, too
}


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """A server that obeys a known law, on loopback."""
    command = "from epidote_loadgen.cli import main; main()"
    server = subprocess.Popen(
        [sys.executable, "-c", command, "mock-server", "--port", "0", "--ttft", str(TTFT_MS / 1e3)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        yield server.stdout.readline().split()[-1]
    finally:
        server.kill()
        server.wait()


def manifest(name: str, url: str, ttft_ms: int, **spec: Any) -> dict[str, Any]:
    """`spec` replaces whole fields."""
    objective = {"ttft_ms": ttft_ms, "ratio": 0.9}
    made: dict[str, Any] = {
        "apiVersion": paths.API_VERSION,
        "kind": "LoadTest",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "target": {"url": url},
            "timeoutSeconds": 120,
            "config": {**RUN, "slo": {"all": {"objectives": [objective]}}},
        },
    }
    made["spec"] |= spec
    return made


async def run_to_its_end(api: KubeApi, name: str) -> LoadTestStatus:
    """What the operator does with a LoadTest, look by look."""
    path = paths.item(paths.API_VERSION, "loadtests", NAMESPACE, name)
    jobs: dict[tuple[str, str], dict[str, Any]] = {}
    load_tests = LoadTests(
        api=api,
        service_of=lambda namespace, service: None,
        job_of=lambda namespace, test: jobs.get((namespace, test)),
        defaults=Defaults(image=WORKER_IMAGE),
    )
    async with asyncio.timeout(PATIENCE_S):
        while True:
            job = await api.get(paths.item("batch/v1", "jobs", NAMESPACE, f"{name}-loadtest"))
            if job is not None:
                jobs[NAMESPACE, name] = job
            status = await load_tests.reconcile(await api.request("GET", path), time.time())
            if status.phase in (LoadTestPhase.FINISHED, LoadTestPhase.FAILED):
                return status
            await asyncio.sleep(0.2)


def waited(cluster: LocalCluster, name: str, timeout: str) -> bool:
    """Whether `kubectl wait` lets a rollout go on."""
    try:
        kubectl = find_tool("kubectl")
    except MissingBinaries as missing:
        pytest.skip(str(missing))
    done = subprocess.run(
        [
            *(kubectl, f"--kubeconfig={cluster.kubeconfig}", f"--namespace={NAMESPACE}"),
            *("wait", f"loadtest/{name}", "--for=condition=SloMet", f"--timeout={timeout}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0


@pytest.mark.parametrize(
    ("name", "ttft_ms", "verdict"),
    [("kept", LATE_MS, Verdict.PASS), ("missed", TTFT_MS // 2, Verdict.FAIL)],
)
async def test_a_jobs_verdict_gates_a_rollout_and_its_report_stays(
    cluster: LocalCluster, api: KubeApi, target: str, name: str, ttft_ms: int, verdict: Verdict
) -> None:
    plural = paths.collection(paths.API_VERSION, "loadtests", NAMESPACE)
    await api.create(plural, manifest(name, target, ttft_ms))
    status = await run_to_its_end(api, name)
    assert (status.phase, status.verdict) == (LoadTestPhase.FINISHED, verdict), status.summary
    assert [objective.verdict for objective in status.objectives] == [verdict]
    assert status.objectives[0].requests > 30
    keeps = verdict is Verdict.PASS
    assert waited(cluster, name, "30s" if keeps else "1s") == keeps
    kept = paths.item("v1", "configmaps", NAMESPACE, status.report_config_map)
    report = json.loads((await api.request("GET", kept))["data"]["report.json"])
    assert report["verdict"]["outcome"] == verdict.value.upper()
    await api.delete(f"{plural}/{name}")


async def test_a_run_beyond_its_time_ends_with_what_it_measured(
    cluster: LocalCluster, api: KubeApi, target: str
) -> None:
    plural = paths.collection(paths.API_VERSION, "loadtests", NAMESPACE)
    test = manifest("endless", target, LATE_MS, timeoutSeconds=3)
    test["spec"]["config"]["arrivals"] = {"rate": 20, "duration_s": 3600}
    await api.create(plural, test)
    status = await run_to_its_end(api, "endless")
    assert (status.phase, status.verdict) == (LoadTestPhase.FINISHED, Verdict.INCONCLUSIVE)
    assert status.summary.startswith("timeoutSeconds (3) were over: interrupted")
    assert status.objectives[0].requests > 10
    await api.delete(f"{plural}/endless")


@pytest.mark.parametrize(
    ("name", "changes", "reason", "said"),
    [
        ("typo", {"config": {**RUN, "arrivals": {"rate": "many"}}}, "InvalidConfig", "arrivals"),
        (
            "kinds",
            {"config": {**RUN, "arrivals": {"kind": "poisson"}}},
            "InvalidSpec",
            "spec.config.arrivals.kind: must be one of open, streams, closed, trace",
        ),
        ("shape", {"template": {"spec": {"tolerations": "x"}}}, "InvalidSpec", "tolerations"),
        ("stranger", {"template": {"spec": {"dnsPolicy": "Nope"}}}, "InvalidSpec", "dnsPolicy"),
    ],
)
async def test_what_cannot_run_says_why_in_its_status_and_in_an_event(
    api: KubeApi, target: str, name: str, changes: dict[str, Any], reason: str, said: str
) -> None:
    plural = paths.collection(paths.API_VERSION, "loadtests", NAMESPACE)
    await api.create(plural, manifest(name, target, TTFT_MS, **changes))
    status = await run_to_its_end(api, name)
    assert status.phase is LoadTestPhase.FAILED
    assert said in status.summary
    assert {condition.reason for condition in status.conditions} == {reason}
    events = await api.request(
        "GET",
        paths.collection("v1", "events", NAMESPACE),
        params={"fieldSelector": f"involvedObject.name={name},type=Warning"},
    )
    assert [event["reason"] for event in events["items"]] == [reason]
    await api.delete(f"{plural}/{name}")
