"""LoadTests: waiting, running once, and what is kept of the verdict and said of it."""

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
REPORT = {"schema": "epidote-loadgen.run/1", "verdict": VERDICT, "summary": {}}
READY = {"conditions": [{"type": "Ready", "status": "True"}], "url": "http://demo.ns.svc:8000/v1"}


@dataclass
class PretendApi:
    """Takes what is applied, and has one pod."""

    message: str = ""
    log: str | None = "warning: few requests\n" + json.dumps(REPORT, separators=(",", ":"))
    end: dict[str, Any] = field(default_factory=dict)  # of the pod's container, besides
    refusal: ApiRefused | None = None  # of the Job
    jobs: list[dict[str, Any]] = field(default_factory=list)
    applied: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)

    async def get(self, path: str, **params: str) -> dict[str, Any] | None:
        if "/jobs/" in path and self.jobs:
            return self.jobs[0]
        return None

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert path.endswith("/events")
        self.events.append(body)
        return body

    async def apply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.applied.append(body)
        return body

    async def merge(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert path.endswith("/loadtests/t/status")
        self.status |= body["status"]
        return body

    async def request(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        if method == "POST":
            if self.refusal is not None:
                raise self.refusal
            self.jobs.append(more["body"])
            return dict(more["body"])
        if "/jobs/" in path:
            return self.jobs[0]
        terminated = {"terminated": {**self.end, "message": self.message}}
        status = {"containerStatuses": [{"name": "loadgen", "state": terminated}]}
        return {"items": [{"metadata": {"name": "p"}, "status": status}]}

    async def text(self, path: str, **more: Any) -> str:
        if self.log is None:
            raise ApiRefused("pods/log is forbidden", status=403, reason="Forbidden")
        return self.log


def load_test(**status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "serving.epidote.dev/v1alpha1",
        "kind": "LoadTest",
        "metadata": {
            "name": "t",
            "namespace": "ns",
            "uid": "u",
            "creationTimestamp": "1970-01-01T00:00:00Z",
        },
        "spec": {
            "target": {"serviceName": "demo"},
            "config": {"arrivals": {"rate": 1}, "classes": {"a": {"kind": "questions"}}},
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
    assert [body["kind"] for body in (*api.applied, *api.jobs)] == ["ConfigMap", "Job"]
    assert "http://demo.ns.svc:8000" in api.applied[0]["data"]["run.yaml"]
    again = await runner(api, service={"status": READY}).reconcile(
        load_test(phase="Running", jobName="t-loadtest"), 11.0
    )
    assert again.phase is LoadTestPhase.RUNNING
    assert len(api.jobs) == 1, "the cache lags: no second run"


async def test_a_failed_test_keeps_its_verdict_and_report() -> None:
    api = PretendApi(message=json.dumps(VERDICT))
    status = await runner(api, job=ended("Failed")).reconcile(load_test(phase="Running"), 99.0)
    assert (status.phase, status.verdict) == (LoadTestPhase.FINISHED, Verdict.FAIL)
    assert slo_met(status) == "False"
    assert [(o.class_name, o.attained_percent) for o in status.objectives] == [("all", 50.0)]
    assert status.report_config_map == "t-report"
    data = api.applied[-1]["data"]
    assert json.loads(data["report.json"]) == REPORT, "JSON, whatever else was said"
    assert data["messages.txt"] == "warning: few requests"


async def test_a_passed_test_opens_the_gate() -> None:
    api = PretendApi(message=json.dumps({**VERDICT, "outcome": "PASS"}))
    status = await runner(api, job=ended("Complete")).reconcile(load_test(phase="Running"), 99.0)
    assert (status.verdict, slo_met(status)) == (Verdict.PASS, "True")


async def test_no_report_costs_no_verdict() -> None:
    api = PretendApi(message=json.dumps(VERDICT), log=None)
    status = await runner(api, job=ended("Failed")).reconcile(load_test(phase="Running"), 99.0)
    assert (status.verdict, status.report_config_map) == (Verdict.FAIL, "")


@pytest.mark.parametrize("message", ["", "Traceback ...", "{}", "[]", "null"])
async def test_a_run_without_a_verdict_has_failed(message: str) -> None:
    api = PretendApi(message=message, log="")
    status = await runner(api, job=ended("Failed")).reconcile(load_test(phase="Running"), 99.0)
    assert (status.phase, status.verdict) == (LoadTestPhase.FAILED, None)
    assert status.summary


async def test_what_has_ended_is_left_alone() -> None:
    api = PretendApi()
    status = await runner(api).reconcile(load_test(phase="Finished", verdict="Pass"), 99.0)
    assert status.verdict is Verdict.PASS
    assert (api.applied, api.status) == ([], {})


async def test_a_verdict_that_is_open_is_neither_met_nor_missed() -> None:
    """Of no request there is no attainment: null."""
    (objective,) = VERDICT["objectives"]
    nothing = {**objective, "outcome": "INCONCLUSIVE", "attainment": None, "num_requests": 0}
    open_ = {**VERDICT, "outcome": "INCONCLUSIVE", "reason": "too few", "objectives": [nothing]}
    api = PretendApi(message=json.dumps(open_))
    status = await runner(api, job=ended("Failed")).reconcile(load_test(phase="Running"), 99.0)
    assert (status.phase, status.verdict) == (LoadTestPhase.FINISHED, Verdict.INCONCLUSIVE)
    assert (slo_met(status), status.summary) == ("Unknown", "too few")
    assert status.objectives[0].attained_percent is None


async def test_a_verdict_is_read_from_the_report_where_the_message_was_lost() -> None:
    status = await runner(PretendApi(), job=ended("Failed")).reconcile(
        load_test(phase="Running"), 99.0
    )
    assert (status.phase, status.verdict) == (LoadTestPhase.FINISHED, Verdict.FAIL)


async def test_a_run_that_its_timeout_ended_says_so() -> None:
    cut = {**VERDICT, "outcome": "INCONCLUSIVE", "reason": "interrupted; until then it held"}
    end = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:01:30Z"}
    test = load_test(phase="Running")
    test["spec"]["timeoutSeconds"] = 60
    api = PretendApi(message=json.dumps(cut), end=end)
    status = await runner(api, job=ended("Failed")).reconcile(test, 99.0)
    assert status.summary == "timeoutSeconds (60) were over: interrupted; until then it held"
    test["spec"]["timeoutSeconds"] = 600
    status = await runner(api, job=ended("Failed")).reconcile(test, 99.0)
    assert status.summary == "interrupted; until then it held", "by somebody else"


async def test_a_configuration_that_is_refused_is_told_in_the_status() -> None:
    """A Job only knows that its back-off limit was reached."""
    api = PretendApi(log="error: run.yaml: arrivals.rate: want a number\n", end={"exitCode": 2})
    status = await runner(api, job=ended("Failed")).reconcile(load_test(phase="Running"), 99.0)
    assert status.phase is LoadTestPhase.FAILED
    assert status.summary == "run.yaml: arrivals.rate: want a number"
    assert {c.reason for c in status.conditions} == {"InvalidConfig"}
    assert api.applied[-1]["data"]["messages.txt"].startswith("error: run.yaml")


async def test_a_job_that_was_deleted_in_mid_run_ends_the_test() -> None:
    api = PretendApi()
    running = load_test(phase="Running", jobName="t-loadtest")
    status = await runner(api, service={"status": READY}).reconcile(running, 99.0)
    assert status.phase is LoadTestPhase.FAILED
    assert "t-loadtest" in status.summary
    assert api.jobs == [], "it never runs twice"


@pytest.mark.parametrize("code", [400, 422])
async def test_a_job_that_cannot_be_has_failed_once_and_for_all(code: int) -> None:
    refusal = ApiRefused("spec.tolerations: want a list", status=code, reason="Invalid")
    api = PretendApi(refusal=refusal)
    status = await runner(api, service={"status": READY}).reconcile(load_test(), 10.0)
    assert status.phase is LoadTestPhase.FAILED
    assert {c.reason for c in status.conditions} == {"InvalidSpec"}
    assert "tolerations" in status.summary


async def test_a_quota_is_waited_for_and_not_for_ever() -> None:
    api = PretendApi(refusal=ApiRefused("exceeded quota", status=403, reason="Forbidden"))
    tests = runner(api, service={"status": READY})
    status = await tests.reconcile(load_test(), 10.0)
    assert (status.phase, status.summary) == (LoadTestPhase.PENDING, "exceeded quota")
    late = await tests.reconcile(load_test(), 61.0)
    assert late.phase is LoadTestPhase.FAILED


async def test_a_name_that_no_job_can_have_is_refused() -> None:
    test = load_test()
    test["metadata"]["name"] = "t" * 55
    api = PretendApi()

    async def merge(path: str, body: dict[str, Any]) -> dict[str, Any]:
        return body

    api.merge = merge  # type: ignore[method-assign]
    status = await runner(api, service={"status": READY}).reconcile(test, 10.0)
    assert status.phase is LoadTestPhase.FAILED
    assert "metadata.name" in status.summary


async def test_no_password_of_a_url_is_shown() -> None:
    test = load_test()
    test["spec"]["target"] = {"url": "http://bob:secret@chat:8000"}
    api = PretendApi()
    status = await runner(api).reconcile(test, 10.0)
    assert status.summary == "runs against http://chat:8000"
    assert "secret" not in status.model_dump_json() + json.dumps(api.events)
    assert "bob:secret@chat" in api.applied[0]["data"]["run.yaml"], "the run needs it"


async def test_each_phase_is_told_once_and_a_miss_is_a_warning() -> None:
    api = PretendApi(message=json.dumps(VERDICT))
    await runner(api, service={"status": READY}).reconcile(load_test(), 10.0)
    going = load_test(phase="Running", jobName="t-loadtest")
    await runner(api, job=api.jobs[0]).reconcile(going, 11.0)
    await runner(api, job=ended("Failed")).reconcile(going, 12.0)
    assert [(e["type"], e["reason"]) for e in api.events] == [
        ("Normal", "Running"),
        ("Warning", "Fail"),
    ]


async def test_an_event_that_is_refused_costs_no_status() -> None:
    api = PretendApi(message=json.dumps(VERDICT))

    async def create(path: str, body: dict[str, Any]) -> dict[str, Any]:
        raise ApiRefused("events is forbidden", status=403, reason="Forbidden")

    api.create = create  # type: ignore[method-assign]
    status = await runner(api, job=ended("Failed")).reconcile(load_test(phase="Running"), 99.0)
    assert api.status["verdict"] == "Fail" == status.verdict
