"""A watched fleet leaves samples on the run's clock, and events for what changed between them."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from epidote_loadgen.config.watch_section import KubernetesSection, WatchSection
from epidote_loadgen.watch.building import build_watcher
from epidote_loadgen.watch.exposition import look_of, parse_page
from epidote_loadgen.watch.fleet_watcher import FleetWatcher
from epidote_loadgen.watch.history import History
from epidote_loadgen.watch.kube_login import NoLogin, read_kubeconfig
from epidote_loadgen.watch.kubernetes_source import KubernetesService, look_of_status
from epidote_loadgen.watch.look import Decision, Look, LookFailed
from epidote_loadgen.watch.metrics_source import MetricsPage, PrometheusServer

PAGE = """# HELP epidote_workers Workers.
# TYPE epidote_workers gauge
epidote_workers{role="encode",state="routable"} 1.0
epidote_workers{role="decode",state="routable"} 2.0
epidote_workers{role="decode",state="starting"} 1.0
epidote_workers{role="prefill",state="routable"} 0.0
# TYPE epidote_worker_waiting_requests gauge
epidote_worker_waiting_requests{role="decode"} 7.0
# TYPE epidote_role_switches counter
epidote_role_switches_total{from_role="decode",to_role="encode",outcome="ok"} 3.0
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="demo"} 5.0
"""
STATUS = {
    "workers": 4,
    "roles": [
        {"name": "encode", "desired": 2, "ready": 1, "switching": 1},
        {"name": "decode", "desired": 2, "ready": 1, "switching": 0},
    ],
    "decisions": [
        {
            "at": "2026-11-21T08:00:05Z",
            "reason": "SloBreach",
            "binding": "GpuBudget",
            "targets": {"encode": 2},
            "actions": ["switch w1 decode → encode"],
            "carriedOut": True,
            "text": "images wait",
            "counterfactual": "one more GPU",
        }
    ],
}
START = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC).timestamp()
Answer = Callable[[str], tuple[int, str]]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    """A small HTTP server; `answer` gets the request line."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status, text = answer(head)
        body = text.encode()
        length = f"content-length: {len(body)}"
        writer.write(f"HTTP/1.1 {status} X\r\n{length}\r\nconnection: close\r\n\r\n".encode())
        writer.write(body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"


def fleet(**states: dict[str, int]) -> Look:
    return Look(workers=states)


def history(*looks: tuple[float, Look]) -> dict[str, Any]:
    made = History()
    for at_s, look in looks:
        made.add("s", look, at_s=at_s, unix_at_zero_s=START)
    return made.to_json()


def test_a_metrics_page_shows_the_fleet_by_role_and_state() -> None:
    look = look_of(parse_page(PAGE))
    assert look.workers == {"encode": {"routable": 1}, "decode": {"routable": 2, "starting": 1}}
    assert look.waiting == {"decode": 7.0}
    assert look.switches == {("decode", "encode", "ok"): 3.0}


def test_a_server_without_roles_shows_its_queues() -> None:
    page = 'vllm:num_requests_waiting{model_name="m"} 4\nvllm:num_requests_running{x="y"} 2\n'
    look = look_of(parse_page(page))
    assert (look.workers, look.waiting, look.running) == ({}, {"all": 4.0}, {"all": 2.0})


@pytest.mark.parametrize("page", ['epidote_workers{role="a} 1', "<html>no</html>", "a b c d"])
def test_a_page_of_another_kind_is_a_failed_look(page: str) -> None:
    with pytest.raises(LookFailed, match="no metrics"):
        parse_page(page)


def test_switches_between_looks_are_events() -> None:
    def switched(count: float, back: float = 0.0) -> Look:
        return Look(
            workers={"decode": {"routable": 2}},
            switches={
                ("decode", "encode", "ok"): count,
                ("encode", "decode", "rolled_back"): back,
            },
        )

    seen = history((1.0, switched(5)), (2.0, switched(5)), (3.0, switched(7, 1)))
    assert [(event["at_s"], event["text"]) for event in seen["events"]] == [
        (3.0, "decode → encode ×2"),
        (3.0, "encode → decode (rolled back)"),
    ]


def test_the_first_switch_of_a_services_life_is_an_event() -> None:
    quiet = Look(workers={"decode": {"routable": 2}})
    switched = Look(workers=quiet.workers, switches={("decode", "encode", "ok"): 1.0})
    seen = history((1.0, quiet), (2.0, switched), (3.0, switched))
    assert [event["at_s"] for event in seen["events"]] == [2.0]


def test_a_new_worker_is_a_scale_event_and_a_cold_start_with_its_duration() -> None:
    seen = history(
        (0.0, fleet(decode={"routable": 1})),
        (5.0, fleet(decode={"routable": 1, "starting": 1})),
        (9.0, fleet(decode={"routable": 1, "starting": 1})),
        (12.5, fleet(decode={"routable": 2})),
        (20.0, fleet(decode={"routable": 1})),
    )
    told = [(event["at_s"], event["kind"], event["text"]) for event in seen["events"]]
    assert told == [
        (5.0, "scale", "1 → 2 workers"),
        (12.5, "cold-start", "a worker was up after 7.5 s"),
        (20.0, "scale", "2 → 1 workers"),
    ]


def test_a_second_source_does_not_count_the_fleet_twice() -> None:
    made = History()
    for at_s, size in ((0.0, 1), (1.0, 2)):
        for source in ("a", "b"):
            look = fleet(decode={"routable": size})
            made.add(source, look, at_s=at_s, unix_at_zero_s=START)
    assert [event["kind"] for event in made.to_json()["events"]] == ["scale"]


def test_decisions_stand_on_the_runs_clock_once_each_with_their_reasons() -> None:
    look = look_of_status(STATUS)
    old = Decision(at_unix_s=START - 60.0, reason="Old", text="before the run")
    seen = history((6.0, look), (7.0, Look(decisions=(*look.decisions, old))))
    [event] = seen["events"]
    assert (event["at_s"], event["kind"], event["reason"]) == (5.0, "decision", "SloBreach")
    assert (event["text"], event["counterfactual"]) == ("images wait", "one more GPU")


def test_a_resources_status_shows_roles_and_workers_that_start() -> None:
    look = look_of_status(STATUS)
    assert look.workers == {
        "encode": {"routable": 1, "switching": 1},
        "decode": {"routable": 1},
        "all": {"starting": 1},
    }
    assert look.desired == {"encode": 2, "decode": 2}
    assert look_of_status({}) == Look()


def test_an_operators_metrics_tell_what_it_wants_and_when_it_decided() -> None:
    def page(count: int) -> Look:
        return look_of(
            parse_page(
                'epidote_operator_desired_workers{role="decode"} 3\n'
                f'epidote_operator_decisions_total{{reason="SloBreach"}} {count}\n'
            )
        )

    assert page(1).desired == {"decode": 3}
    seen = history((1.0, page(4)), (2.0, page(4)), (3.0, page(5)))
    told = [(event["at_s"], event["kind"], event["reason"]) for event in seen["events"]]
    assert told == [(3.0, "decision", "SloBreach")]


def test_a_resource_that_says_why_is_not_repeated_by_a_counter() -> None:
    made = History()
    for at_s, count in ((6.0, 1.0), (7.0, 2.0)):
        made.add("k", look_of_status(STATUS), at_s=at_s, unix_at_zero_s=START)
        counter = Look(decided={"SloBreach": count})
        made.add("m", counter, at_s=at_s, unix_at_zero_s=START)
    assert [event["text"] for event in made.to_json()["events"]] == ["images wait"]


def test_problems_are_counted_and_the_first_ones_kept() -> None:
    made = History()
    for at in range(80):
        made.fail("s", "HTTP 500", at_s=float(at))
    told = made.to_json()
    assert (told["num_problems"], len(told["problems"])) == (80, 50)


async def test_a_page_and_a_prometheus_server_show_the_same_fleet() -> None:
    def answer(head: str) -> tuple[int, str]:
        if "/api/v1/query" not in head:
            return 200, PAGE
        assert "namespace%3D%22prod%22" in head
        result = [
            {"metric": {"__name__": name, **labels}, "value": [1.0, str(value)]}
            for name, labels, value in parse_page(PAGE)
        ]
        return 200, json.dumps({"status": "success", "data": {"result": result}})

    async with serving(answer) as url:
        page = MetricsPage(f"{url}/metrics")
        server = PrometheusServer(url, selector='namespace="prod"')
        assert await page.look() == await server.look() == look_of(parse_page(PAGE))
        await page.close()
        await server.close()


@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        (500, "", "HTTP 500"),
        (200, "no json", "not an answer"),
        (200, '{"status": "error", "error": "bad query"}', "bad query"),
        (200, '{"status": "success", "data": []}', "not an answer"),
    ],
)
async def test_a_prometheus_that_does_not_answer_is_a_failed_look(
    status: int, text: str, message: str
) -> None:
    async with serving(lambda head: (status, text)) as url:
        server = PrometheusServer(url)
        with pytest.raises(LookFailed, match=message):
            await server.look()
        await server.close()


async def test_a_kubernetes_resource_is_asked_for_with_the_token(tmp_path: Path) -> None:
    heads: list[str] = []

    def answer(head: str) -> tuple[int, str]:
        heads.append(head)
        return 200, json.dumps({"status": STATUS})

    async with serving(answer) as url:
        source = KubernetesService("demo", namespace="prod", kubeconfig=kubeconfig(tmp_path, url))
        assert await source.look() == look_of_status(STATUS)
        await source.close()
    path = "/apis/serving.epidote.dev/v1alpha1/namespaces/prod/multimodalservices/demo"
    assert heads[0].startswith(f"GET {path} ")
    assert "authorization: Bearer t0ken" in heads[0]


def kubeconfig(folder: Path, server: str, **user: Any) -> Path:
    path = folder / "config"
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user or {"token": "t0ken"}}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


def test_logins_that_can_not_be_used_say_so(tmp_path: Path) -> None:
    with pytest.raises(NoLogin, match="plugins are not supported"):
        read_kubeconfig(kubeconfig(tmp_path, "http://x", exec={"command": "aws"}))
    with pytest.raises(NoLogin, match="no usable context other"):
        read_kubeconfig(kubeconfig(tmp_path, "http://x"), "other")
    with pytest.raises(NoLogin, match="gone"):
        read_kubeconfig(tmp_path / "gone")
    broken = base64.b64encode(b"no certificate").decode()
    path = kubeconfig(
        tmp_path, "https://x", **{"client-certificate-data": broken, "client-key-data": broken}
    )
    with pytest.raises(NoLogin, match="SSL"):
        read_kubeconfig(path)


async def test_a_watcher_goes_on_after_failed_looks_until_it_is_cancelled() -> None:
    num_asked = 0

    def answer(head: str) -> tuple[int, str]:
        nonlocal num_asked
        num_asked += 1
        return (503, "") if num_asked == 2 else (200, PAGE)

    async with serving(answer) as url:
        section = WatchSection(metrics_url=f"{url}/metrics", interval_s=0.01)
        watcher = build_watcher(section)
        assert watcher is not None
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        task = asyncio.create_task(watcher.watch(lambda: loop.time() - start_s))
        while num_asked < 5:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    seen = watcher.result()
    assert seen["num_problems"] >= 1
    assert "HTTP 503" in seen["problems"][0]["text"]
    assert len(seen["samples"]) >= 3
    assert seen["samples"][0]["at_s"] >= 0.0
    json.dumps(seen)


def test_no_section_is_no_watcher(tmp_path: Path) -> None:
    assert build_watcher(None) is None
    config = kubeconfig(tmp_path, "http://127.0.0.1:1")
    section = WatchSection(kubernetes=KubernetesSection(name="d", kubeconfig=config))
    watcher = build_watcher(section)
    assert isinstance(watcher, FleetWatcher)
    assert watcher.result()["sources"] == ["MultimodalService default/d"]
