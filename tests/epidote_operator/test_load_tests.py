"""LoadTests: waiting, running once, and what is kept of the verdict."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from epidote_operator.kube.errors import ApiRefused
from epidote_operator.load_tests import LoadTests
from epidote_operator.resources.fleet_values import Defaults
from epidote_operator.spec.load_test import LoadTestPhase, LoadTestStatus, Verdict

VERDICT = {
    "outcome": "FAIL",
    "reason": "TTFT missed",
    "objectives": [
        {
            "class": "all",
            "objective": "ttft",
            "outcome": "FAIL",
            "attainment": 0.5,
            "ratio": 0.99,
            "num_requests": 40,
        }
    ],
}
READY = {"conditions": [{"type": "Ready", "status": "True"}], "url": "http://demo.ns.svc:8000/v1"}


@dataclass
class PretendApi:
    """Takes what is applied, and has one pod."""

    message: str = ""
    log: str | None = "the report"
    applied: list[dict[str, Any]] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)

    async def apply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.applied.append(body)
        return body

    async def merge(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert path.endswith("/loadtests/t/status")
        self.status |= body["status"]
        return body

    async def request(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        terminated = {"terminated": {"message": self.message}}
        status = {"containerStatuses": [{"name": "loadgen", "state": terminated}]}
        return {"items": [{"metadata": {"name": "p"}, "status": status}]}

    async def text(self, path: str, **more: Any) -> str:
        if self.log is None:
            raise ApiRefused("pods/log is forbidden", status=403, reason="Forbidden")
        return self.log


def load_test(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "t",
            "namespace": "ns",
            "uid": "u",
            "creationTimestamp": "1970-01-01T00:00:00Z",
        },
        "spec": {
            "target": {"serviceName": "demo"},
            "config": {"arrivals": {"kind": "poisson", "rate": 1}},
            "waitSeconds": 60,
        },
        "status": status,
    }


def runner(api: PretendApi, *, service: Any = None, job: Any = None) -> LoadTests:
    return LoadTests(
        api=api,  # type: ignore[arg-type]
        service_of=lambda namespace, name: service,
        job_of=lambda namespace, name: job,
        defaults=Defaults(),
    )


def ended(kind: str) -> dict[str, Any]:
    conditions = [{"type": kind, "status": "True", "message": "the Job's words"}]
    return {"metadata": {"name": "t-loadtest"}, "status": {"conditions": conditions}}


def slo_met(status: LoadTestStatus) -> str:
    return next(c.status.value for c in status.conditions if c.type == "SloMet")


async def test_it_waits_for_the_service_and_then_not_for_ever() -> None:
    api = PretendApi()
    status = await runner(api).reconcile(load_test(), 10.0)
    assert (status.phase, api.applied) == (LoadTestPhase.PENDING, [])
    assert "demo" in status.summary
    late = await runner(api).reconcile(load_test(), 61.0)
    assert late.phase is LoadTestPhase.FAILED
    assert slo_met(late) == "False"


async def test_the_job_is_made_once_against_the_services_address() -> None:
    api = PretendApi()
    status = await runner(api, service={"status": READY}).reconcile(load_test(), 10.0)
    assert status.phase is LoadTestPhase.RUNNING
    assert [body["kind"] for body in api.applied] == ["ConfigMap", "Job"]
    assert "http://demo.ns.svc:8000" in api.applied[0]["data"]["run.yaml"]
    again = await runner(api, service={"status": READY}).reconcile(
        load_test(phase="Running", jobName="t-loadtest"), 11.0
    )
    assert again.phase is LoadTestPhase.RUNNING
    assert len(api.applied) == 2, "the cache lags: no second run"


async def test_a_failed_test_keeps_its_verdict_and_report() -> None:
    api = PretendApi(message=json.dumps(VERDICT))
    status = await runner(api, job=ended("Failed")).reconcile(load_test(phase="Running"), 99.0)
    assert (status.phase, status.verdict) == (LoadTestPhase.FINISHED, Verdict.FAIL)
    assert slo_met(status) == "False"
    assert [(o.class_name, o.attained_percent) for o in status.objectives] == [("all", 50.0)]
    assert status.report_config_map == "t-report"
    assert api.applied[-1]["data"] == {"report.json": "the report"}


async def test_a_passed_test_opens_the_gate() -> None:
    api = PretendApi(message=json.dumps({**VERDICT, "outcome": "PASS"}))
    status = await runner(api, job=ended("Complete")).reconcile(load_test(phase="Running"), 99.0)
    assert (status.verdict, slo_met(status)) == (Verdict.PASS, "True")


async def test_no_report_costs_no_verdict() -> None:
    api = PretendApi(message=json.dumps(VERDICT), log=None)
    status = await runner(api, job=ended("Failed")).reconcile(load_test(phase="Running"), 99.0)
    assert (status.verdict, status.report_config_map) == (Verdict.FAIL, "")


@pytest.mark.parametrize("message", ["", "Traceback ...", "{}"])
async def test_a_run_without_a_verdict_has_failed(message: str) -> None:
    api = PretendApi(message=message)
    status = await runner(api, job=ended("Failed")).reconcile(load_test(phase="Running"), 99.0)
    assert (status.phase, status.verdict) == (LoadTestPhase.FAILED, None)
    assert status.summary


async def test_what_has_ended_is_left_alone() -> None:
    api = PretendApi()
    status = await runner(api).reconcile(load_test(phase="Finished", verdict="Pass"), 99.0)
    assert status.verdict is Verdict.PASS
    assert (api.applied, api.status) == ([], {})
