"""A real Prometheus takes every query and rule, and finds the operator's own series by them.

Needs the programs `prometheus` and `promtool` (Debian: `apt-get install prometheus`).
"""

import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from prometheus_client import generate_latest

from epidote_core.slo import Slo
from epidote_operator.monitoring.write_monitoring import DASHBOARDS
from epidote_operator.spec.role_bounds import RoleName
from epidote_operator.spec.service_status import (
    AttainmentStatus,
    Condition,
    ConditionStatus,
    GpuStatus,
    MultimodalServiceStatus,
    RoleStatus,
)
from epidote_operator.telemetry import OperatorMetrics
from epidote_operator.testing.binaries import MissingBinaries
from epidote_operator.testing.prometheus_server import find_program, running_prometheus

RULES = Path(__file__).resolve().parents[3] / "charts/epidote/files/rules.yaml"
VARIABLES = {
    "$namespace": ".*",
    "$service": ".*",
    "$model_name": ".*",
    "$__rate_interval": "1m",
}
NOW = "2026-11-21T00:00:00Z"
STATUS = MultimodalServiceStatus(
    workers=4,
    roles=tuple(RoleStatus(name=role, desired=2, ready=1, switching=1) for role in RoleName),
    gpus=GpuStatus(used=4, budget=8),
    conditions=(
        Condition(
            type="Ready", status=ConditionStatus.TRUE, reason="Serving", last_transition_time=NOW
        ),
    ),
    attainment=AttainmentStatus(measured_at=NOW, requests=9, ttft_percent=99.0, tpot_percent=90.0),
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def operator_page() -> Iterator[str]:
    """host:port of a metrics page as the operator serves it."""
    metrics = OperatorMetrics()
    metrics.show("prod", "chat", STATUS)
    metrics.show_promise("prod", "chat", Slo(ttft_s=1.0, tpot_s=0.05))
    metrics.decisions.labels("prod", "chat", "DemandRose").inc()
    metrics.tick_seconds.observe(0.01)
    metrics.leads.set(1)

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(generate_latest(metrics.registry))

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def prometheus(operator_page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prometheus that scraped the page at least twice."""
    folder, metric = tmp_path_factory.mktemp("prometheus"), "epidote_operator_worker_pods"
    try:
        with running_prometheus(folder, operator_page, scraped=metric) as url:
            yield url
    except MissingBinaries as missing:
        pytest.skip(str(missing))


def query(url: str, expr: str) -> list[Any]:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": expr}, trust_env=False, timeout=60.0)
    if answer.status_code == 400:
        pytest.fail(f"{expr}: {answer.json()['error']}")
    answer.raise_for_status()
    found: list[Any] = answer.json()["data"]["result"]
    return found


def expressions(name: str) -> list[str]:
    found = []
    for panel in DASHBOARDS[name]()["panels"]:
        for target in panel.get("targets", []):
            expr = target["expr"]
            for variable, value in VARIABLES.items():
                expr = expr.replace(variable, value)
            found.append(expr)
    return found


@pytest.mark.parametrize("name", DASHBOARDS)
def test_prometheus_takes_every_query(prometheus: str, name: str) -> None:
    for expr in expressions(name):
        query(prometheus, expr)


def test_the_fleets_dashboard_shows_what_the_operator_tells(prometheus: str) -> None:
    found = {expr for expr in expressions("fleet") if query(prometheus, expr)}
    from_operator = {
        expr
        for expr in expressions("fleet")
        if "epidote_operator" in expr
        and not any(part in expr for part in ("_actions", "_tick_failures"))
    }
    assert from_operator <= found


def test_prometheus_takes_every_rule() -> None:
    try:
        promtool = find_program("promtool")
    except MissingBinaries as missing:
        pytest.skip(str(missing))
    done = subprocess.run(
        [promtool, "check", "rules", RULES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
