"""`explain` follows what the operator follows: its spec, its revision, its memory, its metrics."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from typer.testing import CliRunner

from epidote_operator.__main__ import app
from epidote_operator.explaining import explain_with, spec_in_force
from epidote_operator.spec.invalid import InvalidSpec
from epidote_operator.spec.service_status import MultimodalServiceStatus

GOOD = {
    "model": {"uri": "builtin://demo"},
    "pool": {"maxWorkers": 8},
    "slo": {"ttftMilliseconds": 500, "tpotMilliseconds": 50},
}
BAD = {**GOOD, "pool": {"maxWorkers": 0}}


def resource(spec: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "demo"}, "spec": spec}


@dataclass
class PretendApi:
    """One service without pods; remembers what was asked."""

    resource: dict[str, Any]
    secret: dict[str, Any] | None = None
    selectors: list[str] = field(default_factory=list)

    async def request(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        if path.endswith("/pods"):
            self.selectors.append(more["params"]["labelSelector"])
            return {"items": []}
        return self.resource

    async def get(self, path: str) -> dict[str, Any] | None:
        return self.secret


def test_an_invalid_spec_is_explained_by_the_last_good_one_and_said() -> None:
    status = MultimodalServiceStatus.model_validate({"lastGoodSpec": GOOD})
    spec, remark = spec_in_force(resource(BAD), status)
    assert spec.pool.max_workers == 8
    assert "spec.pool.maxWorkers" in remark
    assert spec_in_force(resource(GOOD), status)[1] == ""
    with pytest.raises(InvalidSpec, match="maxWorkers"):
        spec_in_force(resource(BAD), MultimodalServiceStatus())


@pytest.mark.parametrize("secret", [None, {}, {"data": {"other": "eA=="}}])
async def test_pods_of_the_serving_revision_count_and_a_spoilt_memory_or_secret_is_no_end(
    secret: dict[str, Any] | None,
) -> None:
    status = {"revision": "abc", "memory": {"version": 9, "nonsense": True}}
    api = PretendApi({**resource(GOOD), "status": status}, secret)
    plan, remark = await explain_with(
        api,  # type: ignore[arg-type]
        "ns",
        "demo",
        window_s=0.0,
        prometheus_url="",
    )
    assert remark == ""
    assert plan.explanation.text
    assert [s for s in api.selectors if "epidote.dev/revision=abc" not in s] == []
    assert len(api.selectors) == 2


async def test_prometheus_is_asked_where_the_operators_setting_says() -> None:
    asked: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await explain_with(
            PretendApi(resource({**GOOD, "metrics": {"source": "Prometheus"}})),  # type: ignore[arg-type]
            "ns",
            "demo",
            window_s=0.0,
            prometheus_url=f"http://127.0.0.1:{port}",
        )
    assert any(b"/api/v1/query" in line for line in asked)


def test_a_bad_setting_is_a_usage_error_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPIDOTE_OPERATOR_HTTP_PORT", "99999")
    for command in (["run"], ["explain", "demo"]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2
        assert "EPIDOTE_OPERATOR_HTTP_PORT" in done.output
