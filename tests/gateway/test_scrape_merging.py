"""One scrape of several gateway processes: what adds up, and what all of them see alike."""

from typing import Any

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from epidote_gateway.app import create_app
from epidote_gateway.fakes import FakeBackend, FakeRenderer
from epidote_gateway.scrape_merging import merge
from epidote_gateway.settings import GatewaySettings


def read(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


async def test_processes_behind_one_port_answer_a_scrape_with_their_sum(
    backend: FakeBackend, serve: Any, chat: Any
) -> None:
    import httpx

    apps: list[Any] = []

    async def others() -> list[bytes]:
        return [generate_latest(app.state.registry) for app in apps[1:]]

    for _ in range(3):
        apps.append(create_app(backend, FakeRenderer(), GatewaySettings(), siblings=others))
    urls = [await serve(app) for app in apps]
    async with httpx.AsyncClient(timeout=60) as client:
        for url, count in zip(urls, (1, 2, 4), strict=True):
            for _ in range(count):
                answer = await client.post(f"{url}/v1/chat/completions", json=chat())
                assert answer.status_code == 200
        found = read((await client.get(f"{urls[0]}/metrics")).content)
    model = (("model_name", "fake-vl"),)
    kind = (("modality", "text"), ("model_name", "fake-vl"))
    assert found[("epidote_gateways", ())] == 3
    assert found[("epidote_ttft_seconds_count", kind)] == 7
    assert found[("epidote_ttft_seconds_bucket", (("le", "+Inf"), *kind))] == 7
    assert found[("vllm:generation_tokens_total", model)] == 7 * 24
    assert found[("epidote_requests_in_flight", ())] == 0
    workers = {key: value for key, value in found.items() if key[0] == "epidote_workers"}
    assert sum(workers.values()) == len(backend.fleet), "seen by all, counted once"


def test_gauges_of_own_requests_add_up_and_the_fleets_do_not() -> None:
    text = b"""# TYPE epidote_requests_in_flight gauge
epidote_requests_in_flight 2
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{model_name="m"} 5
# TYPE epidote_transfer_bytes_total counter
epidote_transfer_bytes_total{direction="in",kind="kv",transport="nixl"} 7
# TYPE epidote_workers gauge
epidote_workers{role="all",state="routable"} 3
"""
    more = b"""# TYPE epidote_cache_hits_total counter
epidote_cache_hits_total{category="a"} 4
"""
    found = read(merge([text, text + more, more]))
    assert found[("epidote_requests_in_flight", ())] == 4
    assert found[("vllm:prefix_cache_hits_total", (("model_name", "m"),))] == 5
    moved = (("direction", "in"), ("kind", "kv"), ("transport", "nixl"))
    assert found[("epidote_transfer_bytes_total", moved)] == 7
    assert found[("epidote_workers", (("role", "all"), ("state", "routable")))] == 3
    assert found[("epidote_cache_hits_total", (("category", "a"),))] == 8


def test_the_process_that_saw_more_workers_end_tells_what_the_fleet_counted() -> None:
    text = """# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{model_name="m"} %d
# TYPE epidote_expert_tokens_total counter
epidote_expert_tokens_total{expert="0"} %d
epidote_expert_tokens_total{expert="1"} %d
"""
    old, new = (text % (900, 5, 30)).encode(), (text % (100, 9, 20)).encode()
    for scrapes in ([old, new], [new, old], [new, old, new]):
        found = read(merge(scrapes))
        assert found[("vllm:prefix_cache_hits_total", (("model_name", "m"),))] == 900
        assert found[("epidote_expert_tokens_total", (("expert", "0"),))] == 9
        assert found[("epidote_expert_tokens_total", (("expert", "1"),))] == 30
