"""Metrics to the planner's words: arrivals, sizes, attainment, queues."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from epidote_core.modality import Modality
from epidote_core.roles import Role, WorkerState
from epidote_core.slo import Slo
from epidote_gateway.cache.cache_metrics import CacheMetrics
from epidote_gateway.cache.outcome import Kind, Outcome, Status, Why
from epidote_operator.observe.exposition import parse_scrape
from epidote_operator.observe.gateway_client import FleetReport, WorkerReport
from epidote_operator.observe.signals import attainment, cache_signals, role_signals, traffic
from epidote_operator.observe.window import MetricsWindow

SLOS = {Modality.TEXT: Slo(ttft_s=0.5, tpot_s=0.05), Modality.IMAGE: Slo(ttft_s=2.5, tpot_s=0.05)}


def histogram(name: str, modality: str, buckets: dict[str, int], total: float) -> str:
    label = f'modality="{modality}"' if modality else ""
    lines = [
        f'{name}_bucket{{{label}{"," if label else ""}le="{bound}"}} {count}'
        for bound, count in buckets.items()
    ]
    return "\n".join([*lines, f"{name}_sum{{{label}}} {total}"])


def test_arrivals_become_rates_with_sizes() -> None:
    text = "\n".join(
        [
            'epidote_arrivals_total{modality="image"} 20',
            histogram(
                "epidote_request_output_tokens", "image", {"10": 0, "20": 10, "+Inf": 10}, 150
            ),
            histogram("epidote_request_text_tokens", "image", {"50": 10, "+Inf": 10}, 300),
            histogram("epidote_request_media", "image", {"1": 10, "+Inf": 10}, 10),
            histogram("epidote_request_media_tokens", "image", {"100": 10, "+Inf": 10}, 640),
        ]
    )
    (found,) = traffic(parse_scrape(text, 0.0), 10.0)
    assert (found.modality, found.arrival_rps) == (Modality.IMAGE, 2.0)
    assert found.output_tokens.mean == 15.0
    assert 10 <= found.output_tokens.p50 <= found.output_tokens.p99 <= 20
    assert found.images.mean == 1.0
    assert found.image_tokens.mean == 64.0


def test_requests_that_wait_or_were_shed_have_arrived_too() -> None:
    text = (
        'epidote_arrivals_total{modality="text"} 10\n'
        'epidote_request_errors_total{code="overloaded"} 5'
    )
    (found,) = traffic(parse_scrape(text, 0.0), 10.0, queue_growth=5.0)
    assert found.arrival_rps == pytest.approx(2.0)


def test_sizes_of_the_last_window_stand_in_while_nothing_has_finished() -> None:
    text = 'epidote_arrivals_total{modality="text"} 10\n' + histogram(
        "epidote_request_output_tokens", "text", {"20": 10, "+Inf": 10}, 100
    )
    (last,) = traffic(parse_scrape(text, 0.0), 10.0)
    (now,) = traffic(
        parse_scrape('epidote_arrivals_total{modality="text"} 40', 0.0),
        10.0,
        shapes={Modality.TEXT: last},
    )
    assert (now.arrival_rps, now.output_tokens) == (4.0, last.output_tokens)


def test_each_modality_is_judged_by_its_own_target() -> None:
    text = "\n".join(
        [
            histogram("epidote_ttft_seconds", "text", {"0.5": 5, "2.5": 10, "+Inf": 10}, 9),
            histogram("epidote_ttft_seconds", "image", {"0.5": 0, "2.5": 10, "+Inf": 10}, 15),
            histogram(
                "vllm:request_time_per_output_token_seconds", "", {"0.05": 19, "+Inf": 20}, 1
            ),
        ]
    )
    seen = attainment(parse_scrape(text, 7.0), SLOS)
    assert seen is not None
    assert (seen.num_requests, seen.ttft_ratio, seen.tpot_ratio) == (20, 0.75, 0.95)


def test_without_requests_there_is_no_attainment() -> None:
    assert attainment(parse_scrape("", 0.0), SLOS) is None
    assert cache_signals(parse_scrape("", 0.0)).prefix_hit_ratio == 0.0


def test_the_hit_ratio_is_read_from_what_the_cache_itself_exports() -> None:
    """Six arrivals: two hits, one that shared an answer, two misses, one that was not looked up."""
    registry = CollectorRegistry()
    counted = CacheMetrics(registry, lambda: [])
    for outcome in (
        *[Outcome(status=Status.HIT, kind=Kind.EXACT, category="faq")] * 2,
        Outcome(status=Status.MISS, why=Why.COLLAPSED, category="faq"),
        *[Outcome(status=Status.MISS, why=Why.NOTHING_NEAR, category="faq")] * 2,
        Outcome(status=Status.BYPASS, why=Why.ASKED),
    ):
        counted.observe(outcome, 0.001)
    scrape = parse_scrape(generate_latest(registry).decode(), 0.0)
    assert cache_signals(scrape).response_hit_ratio == 0.5


def worker(name: str, role: Role, **fields: object) -> WorkerReport:
    return WorkerReport(worker_id=name, role=role, state=WorkerState.ROUTABLE, epoch=1, **fields)  # type: ignore[arg-type]


def test_queues_are_summed_by_role_and_a_role_without_workers_has_none() -> None:
    report = FleetReport(
        at_s=3.0,
        workers=(
            worker("a", Role.PREFILL, num_waiting=2, queued_prefill_tokens=100),
            worker("b", Role.PREFILL, num_waiting=1, queued_prefill_tokens=50),
            worker("c", Role.DECODE, num_running=4, num_kv_blocks=10, num_free_kv_blocks=4),
        ),
    )
    signals = role_signals(report)
    assert set(signals) == {Role.PREFILL, Role.DECODE}
    assert (signals[Role.PREFILL].num_waiting, signals[Role.PREFILL].waiting_tokens) == (3, 150.0)
    assert signals[Role.DECODE].kv_utilization == pytest.approx(0.6)
    assert signals[Role.DECODE].measured_at_s == 3.0


def scrape(count: int, at_s: float) -> dict[str, object]:
    return {"g": parse_scrape(f'epidote_arrivals_total{{modality="text"}} {count}', at_s)}


def test_one_scrape_says_nothing_two_say_a_rate() -> None:
    window = MetricsWindow()
    window.add(scrape(5, 0.0), 0.0)  # type: ignore[arg-type]
    assert window.read(SLOS, 0.0).at_s is None
    window.add(scrape(25, 10.0), 10.0)  # type: ignore[arg-type]
    seen = window.read(SLOS, 10.0)
    assert seen.at_s == 10.0
    assert [t.arrival_rps for t in seen.arrivals] == [2.0]


def test_looks_a_moment_apart_are_compared_with_an_earlier_one() -> None:
    """An operator that ticks fast, or is woken by a change of the spec, sees traffic, too."""
    window = MetricsWindow()
    for number in range(4):
        now_s = 0.3 * number
        window.add(scrape(3 * number, now_s), now_s)  # type: ignore[arg-type]
        seen = window.read(SLOS, now_s)
        assert (seen.at_s is None) == (now_s < 0.5)
    assert [t.arrival_rps for t in seen.arrivals] == [pytest.approx(10.0)]


def test_a_gateway_that_is_silent_leaves_the_last_reading_to_grow_stale() -> None:
    window = MetricsWindow()
    window.add(scrape(0, 0.0), 0.0)  # type: ignore[arg-type]
    window.add(scrape(20, 10.0), 10.0)  # type: ignore[arg-type]
    fresh = window.read(SLOS, 10.0)
    window.add({}, 20.0)
    assert window.read(SLOS, 20.0) == fresh
    window.add(scrape(80, 30.0), 30.0)  # type: ignore[arg-type]
    assert [t.arrival_rps for t in window.read(SLOS, 30.0).arrivals] == [3.0]
