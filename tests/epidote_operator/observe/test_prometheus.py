"""Traffic by PromQL: from a real Prometheus where there is one, and what is said without one."""

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from epidote_core.modality import Modality
from epidote_core.slo import Slo
from epidote_operator.observe.prometheus import PARTS, PrometheusSource, query_of
from epidote_operator.testing.binaries import MissingBinaries
from epidote_operator.testing.prometheus_server import running_prometheus

SLOS = {modality: Slo(ttft_s=0.5, tpot_s=0.05) for modality in (Modality.TEXT, Modality.IMAGE)}
LABELS = {"namespace": "ns", "service": "chat"}
PER_SECOND = {"text": 8.0, "image": 2.0}


class Gateway(BaseHTTPRequestHandler):
    """Counters that grow with the clock: 8 texts and 2 pictures a second."""

    born_s = 0.0

    def do_GET(self) -> None:
        age_s = time.monotonic() - self.born_s
        lines = ["epidote_gateways 1"]
        for modality, rps in PER_SECOND.items():
            count, label = rps * age_s, f'modality="{modality}"'
            lines.append(f"epidote_arrivals_total{{{label}}} {count}")
            late = 0.5 if modality == "image" else 0.0
            for bound, share in (("0.5", 1.0 - late), ("2.5", 1.0), ("+Inf", 1.0)):
                lines.append(f'epidote_ttft_seconds_bucket{{{label},le="{bound}"}} {share * count}')
            for name in ("text", "output"):
                metric = f"epidote_request_{name}_tokens"
                lines.append(f'{metric}_bucket{{{label},le="32"}} {count}')
                lines.append(f'{metric}_bucket{{{label},le="+Inf"}} {count}')
                lines.append(f"{metric}_sum{{{label}}} {20 * count}")
        self.send_response(200)
        self.end_headers()
        self.wfile.write("\n".join([*lines, ""]).encode())

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    Gateway.born_s = time.monotonic()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    Thread(target=server.serve_forever, daemon=True).start()
    folder, target = tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{server.server_port}"
    try:
        with running_prometheus(folder, target, scraped="epidote_gateways", labels=LABELS) as url:
            yield url
    except MissingBinaries as missing:
        pytest.skip(str(missing))
    finally:
        server.shutdown()


def source(url: str, service: str = "chat") -> PrometheusSource:
    return PrometheusSource(url=url, namespace="ns", service=service, window_s=60)


@pytest.mark.slow
async def test_a_real_prometheus_gives_what_the_gateways_counted(prometheus: str) -> None:
    """Its `increase` extrapolates to the window's edges, hence shares and means, not counts."""
    now_s = time.time()
    seen = await source(prometheus).read(SLOS, now_s)
    assert seen.message == ""
    assert seen.at_s is not None
    assert now_s - 30.0 < seen.at_s <= now_s
    arrivals = {item.modality: item for item in seen.arrivals}
    ratio = arrivals[Modality.TEXT].arrival_rps / arrivals[Modality.IMAGE].arrival_rps
    assert ratio == pytest.approx(4.0, rel=0.01)
    assert arrivals[Modality.TEXT].output_tokens.mean == pytest.approx(20.0, rel=0.01)
    assert seen.attainment is not None
    assert seen.attainment.ttft_ratio == pytest.approx(0.9, rel=0.01), "half of the pictures late"


@pytest.mark.slow
async def test_a_service_without_series_is_not_taken_for_one_without_load(prometheus: str) -> None:
    seen = await source(prometheus, "other").read(SLOS, time.time())
    assert seen.at_s is None
    assert "no series of service 'other'" in seen.message


async def test_a_prometheus_that_is_away_leaves_the_last_reading_to_grow_stale() -> None:
    seen = await source("http://127.0.0.1:1").read(SLOS, 5.0)
    assert seen.at_s is None
    assert seen.message.startswith("Prometheus at http://127.0.0.1:1: ConnectError")
    nowhere = await source("").read(SLOS, 5.0)
    assert "metrics.prometheusUrl" in nowhere.message


def test_every_part_of_the_query_is_about_one_service() -> None:
    query = query_of("ns", "chat", 60)
    assert query.count('{namespace="ns",service="chat"}') == len(PARTS) + 1
    assert "sum by (modality,le)(increase(epidote_ttft_seconds_bucket{" in query
