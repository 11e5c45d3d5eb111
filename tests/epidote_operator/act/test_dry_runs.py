"""What the API server says beforehand: refused by field, let in with a warning, or in silence."""

import asyncio
from collections.abc import Callable
from typing import Any

import kopf
import pytest

from epidote_operator.act.dry_runs import DryRuns
from epidote_operator.handlers import admission
from epidote_operator.kube.errors import ApiRefused, ApiUnreachable, Cause
from epidote_operator.resources.fleet_values import Defaults

Manifest = dict[str, Any]
SPEC: Manifest = {
    "model": {"uri": "builtin://demo"},
    "pool": {"maxWorkers": 4, "template": {"spec": {"dnsPolicy": "Nope"}}},
    "slo": {"ttftMilliseconds": 500, "tpotMilliseconds": 50},
}
SERVICES = "multimodalservices"


class Server:
    """Answers to each object as `judge` does; keeps what it was asked."""

    def __init__(self, judge: Callable[[Manifest], None] = lambda body: None) -> None:
        self.judge, self.asked = judge, list[Manifest]()
        self.silent = False

    async def request(
        self, method: str, path: str, *, params: Manifest, body: Manifest
    ) -> Manifest:
        assert method == "POST"
        assert params["dryRun"] == "All", "nothing is made"
        assert path == f"/api/v1/namespaces/ns/{'pods' if body['kind'] == 'Pod' else 'services'}"
        self.asked.append(body)
        if self.silent:
            await asyncio.Event().wait()
        self.judge(body)
        return body


def dry_runs(server: Server, deadline_s: float = 60.0) -> DryRuns:
    return DryRuns(api=server, defaults=Defaults(), deadline_s=deadline_s)  # type: ignore[arg-type]


def refusing(refusal: Exception) -> Callable[[Manifest], None]:
    def judge(body: Manifest) -> None:
        if body["spec"].get("dnsPolicy") == "Nope":
            raise refusal

    return judge


UNSUPPORTED = 'Unsupported value: "Nope"'
INVALID = ApiRefused(
    "POST …: 422 Invalid: Pod is invalid",
    status=422,
    reason="Invalid",
    causes=(Cause(field="spec.dnsPolicy", message=UNSUPPORTED),),
)


async def test_a_pod_that_cannot_be_is_refused_by_the_field_it_comes_from() -> None:
    ruling = await dry_runs(Server(refusing(INVALID))).rule_on(SERVICES, "chat", "ns", SPEC)
    (problem,) = ruling.problems
    assert problem.path == "spec.pool.template.spec.dnsPolicy"
    assert problem.found == UNSUPPORTED
    assert not ruling.warnings


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (ApiUnreachable("POST …: no route"), "no route"),
        (ApiRefused("POST …: 403 Forbidden: no quota", status=403, reason="Forbidden"), "no quota"),
        (ApiRefused("POST …: 500 : etcd", status=500, reason=""), "etcd"),
        (
            ApiRefused(
                'POST …: 400 BadRequest: admission webhook "x" does not support dry run',
                status=400,
                reason="BadRequest",
            ),
            "does not support dry run",
        ),
    ],
)
async def test_what_says_nothing_of_the_pod_lets_it_in_with_a_warning(
    refusal: Exception, said: str
) -> None:
    ruling = await dry_runs(Server(refusing(refusal))).rule_on(SERVICES, "chat", "ns", SPEC)
    assert not ruling.problems
    (warning,) = ruling.warnings
    assert warning.startswith("spec.pool: ")
    assert said in warning


async def test_a_server_that_does_not_answer_in_time_lets_it_in_with_warnings() -> None:
    server = Server()
    server.silent = True
    ruling = await dry_runs(server, deadline_s=0.01).rule_on(SERVICES, "chat", "ns", SPEC)
    assert not ruling.problems
    assert len(ruling.warnings) == 4, "worker, head, gateway, Service"


async def test_only_what_a_change_makes_anew_is_asked_about() -> None:
    server = Server()
    asks = dry_runs(server)
    await asks.rule_on(SERVICES, "chat", "ns", {**SPEC, "slo": {**SPEC["slo"], "x": 1}}, SPEC)
    slower = {**SPEC, "slo": {"ttftMilliseconds": 900, "tpotMilliseconds": 50}}
    await asks.rule_on(SERVICES, "chat", "ns", slower, SPEC)
    assert server.asked == []
    rest = {**SPEC, "gateway": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}}
    await asks.rule_on(SERVICES, "chat", "ns", rest, SPEC)
    (gateway,) = server.asked
    assert gateway["spec"]["nodeSelector"] == {"a": "b"}


async def test_kinds_without_pods_are_asked_nothing() -> None:
    server = Server()
    policy = {"categories": [{"name": "default"}]}
    ruling = await dry_runs(server).rule_on("cachepolicies", "desk", "ns", policy)
    assert not ruling.problems
    assert server.asked == []


async def test_the_webhook_refuses_what_the_server_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    validate = admission._validator(SERVICES, dry_runs(Server(refusing(INVALID))), kuberay=True)
    told: list[str] = []
    with pytest.raises(kopf.AdmissionError, match=r"spec\.pool\.template\.spec\.dnsPolicy") as no:
        await validate(name="chat", namespace="ns", new={"spec": SPEC}, old=None, warnings=told)
    assert no.value.code == 422
