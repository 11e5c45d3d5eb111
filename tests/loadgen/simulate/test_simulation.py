"""Whole runs on synthetic traces: laws of the simulator, and policies in it."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epidote_core.modality import Modality
from epidote_core.roles import Role
from epidote_core.slo import Slo
from epidote_loadgen.simulate.bound import lower_bound
from epidote_loadgen.simulate.cli import main
from epidote_loadgen.simulate.config import Layout, SimConfig, coupled, split
from epidote_loadgen.simulate.outcome import Outcome
from epidote_loadgen.simulate.policy import Policy, nothing, planner
from epidote_loadgen.simulate.profiles import load_profile
from epidote_loadgen.simulate.report import html_report
from epidote_loadgen.simulate.rivals.dynamo import DynamoRule, dynamo_load, dynamo_throughput
from epidote_loadgen.simulate.rivals.elasticmm import ElasticRules, elastic_rules
from epidote_loadgen.simulate.rivals.epdserve import (
    LongestQueue,
    decide_migration,
    longest_queue,
)
from epidote_loadgen.simulate.rivals.hpa import HpaRule, Metric, hpa
from epidote_loadgen.simulate.rivals.keda import TokenVelocity, token_velocity
from epidote_loadgen.simulate.search import tune
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_loadgen.simulate.simulation import simulate
from epidote_loadgen.simulate.traces import poisson, servegen
from epidote_planner.lane import DEFAULT_GROUP, SPLIT_ROLES, Lane
from epidote_planner.policy import DampingPolicy, PlannerPolicy

PROFILE = load_profile("internvl2-26b-a100", startup_s=60.0)
SLO = Slo(ttft_s=5.0, tpot_s=0.1)


def trace(
    *,
    rps: float = 4.0,
    duration_s: float = 300.0,
    images: int = 2,
    burst: float = 1.0,
    seed: int = 0,
) -> Iterator[SimRequest]:
    """Poisson arrivals; in the middle third `burst` times as many."""

    def rate(now_s: float) -> float:
        return rps * (burst if duration_s / 3 < now_s < 2 * duration_s / 3 else 1.0)

    def make(now_s: float, random: Random) -> SimRequest:
        count = random.randint(0, images)
        return SimRequest(
            now_s,
            random.randint(20, 1500),
            random.randint(1, 200),
            tuple(random.randint(100, 900) for _ in range(count)),
        )

    return poisson(rate, rps * max(1.0, burst), make, end_s=duration_s, seed=seed)


def rivals() -> dict[str, tuple[Policy, Layout]]:
    lanes = {role: Lane(DEFAULT_GROUP, role) for role in Role}
    rule = DynamoRule(profile=PROFILE, slo=SLO, interval_s=60.0, target_utilization=0.7)
    busy = HpaRule(metric=Metric.BUSY, target=0.5, down_window_s=60.0)
    kv = HpaRule(metric=Metric.KV, target=0.5, down_window_s=60.0)
    pool = HpaRule(metric=Metric.CONCURRENCY, target=4.0, down_window_s=60.0)
    ours = PlannerPolicy(profile=PROFILE, slo=SLO, damping=DampingPolicy(shrink_window_s=60.0))
    return {
        "epidote": (planner(ours), Layout.SPLIT),
        "static": (nothing, Layout.SPLIT),
        "two stages": (nothing, Layout.TWO_STAGE),
        "coupled": (nothing, Layout.COUPLED),
        "hpa": (
            hpa({lanes[Role.ENCODE]: busy, lanes[Role.PREFILL]: busy, lanes[Role.DECODE]: kv}),
            Layout.SPLIT,
        ),
        "hpa coupled": (hpa({lanes[Role.ALL]: pool}), Layout.COUPLED),
        "keda": (
            token_velocity(TokenVelocity(encode=1500.0, prefill=2000.0, decode=800.0)),
            Layout.SPLIT,
        ),
        "dynamo": (dynamo_throughput(rule), Layout.SPLIT),
        "dynamo load": (dynamo_load(rule), Layout.SPLIT),
        "longest queue": (longest_queue(LongestQueue()), Layout.SPLIT),
        "elasticmm": (elastic_rules(ElasticRules(profile=PROFILE)), Layout.SPLIT),
    }


def config(layout: Layout, workers: tuple[int, int, int] = (2, 3, 1)) -> SimConfig:
    initial = coupled(sum(workers)) if layout is Layout.COUPLED else split(*workers)
    if layout is Layout.TWO_STAGE:
        initial = {lane: n for lane, n in initial.items() if lane.role is not Role.ENCODE}
    return SimConfig(profile=PROFILE, slo=SLO, layout=layout, initial=initial, tick_s=5.0)


@pytest.mark.parametrize("name", rivals())
def test_every_request_is_answered_once_and_no_policy_beats_the_bound(name: str) -> None:
    policy, layout = rivals()[name]
    rules = config(layout)
    outcome = simulate(rules, policy, trace(burst=2.0))
    assert outcome.num_requests == sum(1 for _ in trace(burst=2.0))
    assert outcome.num_lost == 0
    bound = lower_bound(rules, trace(burst=2.0), attainment=outcome.attainment)
    assert bound.gpu_seconds <= outcome.gpu_seconds


@given(
    st.integers(0, 10**6),
    st.floats(0.3, 8.0),
    st.floats(0.02, 0.2),
    st.sampled_from(["static", "two stages", "coupled", "epidote"]),
    st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3)),
)
@settings(max_examples=25)
def test_no_fleet_beats_the_bound(
    seed: int, rps: float, tpot_s: float, name: str, workers: tuple[int, int, int]
) -> None:
    policy, layout = rivals()[name]
    base = config(layout, workers)
    rules = SimConfig(
        profile=base.profile,
        slo=Slo(ttft_s=3.0, tpot_s=tpot_s),
        layout=layout,
        initial=base.initial,
        tick_s=5.0,
    )
    outcome = simulate(rules, policy, trace(rps=rps, duration_s=60.0, seed=seed))
    bound = lower_bound(
        rules, trace(rps=rps, duration_s=60.0, seed=seed), attainment=outcome.attainment
    )
    assert bound.gpu_seconds <= outcome.gpu_seconds


def test_runs_are_equal_for_an_equal_seed() -> None:
    policy, layout = rivals()["epidote"]
    first = simulate(config(layout), policy, trace(burst=3.0, seed=3))
    assert simulate(config(layout), policy, trace(burst=3.0, seed=3)) == first
    assert simulate(config(layout), policy, trace(burst=3.0, seed=4)) != first


def test_planner_follows_a_burst_that_a_static_fleet_misses() -> None:
    policy, layout = rivals()["epidote"]
    ours = simulate(config(layout), policy, trace(duration_s=1800.0, burst=3.0))
    static = simulate(config(layout), nothing, trace(duration_s=1800.0, burst=3.0))
    assert ours.attainment > static.attainment + 0.2
    assert ours.num_starts > 0
    assert ours.num_removals > 0


def test_starts_that_never_come_up_are_given_up_and_asked_for_again() -> None:
    rules = SimConfig(profile=PROFILE, slo=SLO, initial=split(1, 1, 1), tick_s=5.0, failed_starts=3)
    patience = DampingPolicy(start_deadline_s=120.0, start_backoff_s=30.0)
    ours = planner(PlannerPolicy(profile=PROFILE, slo=SLO, damping=patience))
    outcome = simulate(rules, ours, trace(duration_s=900.0))
    reasons = {moment.reason for moment in outcome.moments}
    assert "StartTimedOut" in reasons
    assert sum(outcome.moments[-1].workers.values()) > 3


def test_profile_that_is_too_fast_is_corrected_online() -> None:
    """The planner believes in decode steps three times as fast as they are."""
    believed = PROFILE.__class__(
        **{
            **{f: getattr(PROFILE, f) for f in PROFILE.__dataclass_fields__},
            "prefill": PROFILE.prefill.__class__(per_token_s=PROFILE.prefill.per_token_s / 2),
        }
    )
    ours = planner(PlannerPolicy(profile=believed, slo=SLO))
    outcome = simulate(config(Layout.SPLIT), ours, trace(rps=6.0, duration_s=1500.0))
    late = [m.ttft_met for m in outcome.moments[-60:]]
    assert sum(late) / len(late) > 0.98


def test_caches_answer_what_they_hold() -> None:
    def repeated() -> Iterator[SimRequest]:
        for index in range(60):
            yield SimRequest(
                float(index),
                500,
                20,
                (300,),
                image_ids=(index % 3,),
                block_ids=(index % 5,),
                answer_id=index % 30,
            )

    cold = SimConfig(profile=PROFILE, slo=SLO, initial=split(1, 1, 1))
    warm = SimConfig(
        profile=PROFILE,
        slo=SLO,
        initial=split(1, 1, 1),
        answer_ttl_s=100.0,
        encoder_cache_images=10,
        prefix_blocks=10,
    )
    slow, fast = simulate(cold, nothing, repeated()), simulate(warm, nothing, repeated())
    assert fast.num_requests == slow.num_requests == 60
    assert fast.ttft_s["mean"] < slow.ttft_s["mean"] / 1.5
    with pytest.raises(ValueError, match="without caches"):
        lower_bound(warm, repeated(), attainment=1.0)


def test_expert_skew_slows_decode() -> None:
    even = simulate(config(Layout.SPLIT), nothing, trace())
    rules = SimConfig(
        profile=PROFILE,
        slo=SLO,
        initial=split(2, 3, 1),
        tick_s=5.0,
        imbalance=((50.0, 2.0, 0.5),),
    )
    skewed = simulate(rules, nothing, trace())
    assert skewed.tpot_s["mean"] > 1.2 * even.tpot_s["mean"]


def test_longest_queue_keeps_the_last_worker_of_a_role() -> None:
    queues = {Role.ENCODE: 0, Role.PREFILL: 0, Role.DECODE: 9}
    counts = dict.fromkeys(SPLIT_ROLES, 1)
    assert decide_migration(queues, counts) is None
    assert decide_migration(queues, {**counts, Role.ENCODE: 3, Role.PREFILL: 2}) == (
        Role.ENCODE,
        Role.DECODE,
    )
    assert decide_migration({**queues, Role.ENCODE: 5, Role.PREFILL: 5}, counts) is None


def test_search_prefers_attainment_and_then_the_cheaper_fleet() -> None:
    def run(values: object) -> Outcome:
        count = int(values["workers"])  # type: ignore[index]
        return simulate(config(Layout.SPLIT, (count, count, 1)), nothing, trace())

    found = tune({"workers": (1.0, 2.0, 3.0, 6.0)}, run, attainment=0.95)
    smaller = run({"workers": found.values["workers"] - 1})
    assert found.outcome.attainment >= 0.95
    assert smaller.attainment < 0.95


def test_command_line_prints_json_writes_a_page_and_advises(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "run.html"
    load = ["--rps", "2", "--duration", "120"]
    assert main([*load, "--json", "--html", str(page)]) in (0, 1)
    shown = json.loads(capsys.readouterr().out)
    assert shown["num_requests"] > 100
    assert shown["lower_bound_gpu_seconds"] < shown["gpu_seconds"]
    text = page.read_text(encoding="utf-8")
    assert "<svg" in text
    assert "<script" not in text
    assert main([*load, "--advise", "--json"]) == 0
    advised = json.loads(capsys.readouterr().out)
    assert advised["encode"] >= 1
    assert advised["coupled"] >= 1


def test_report_escapes_what_it_shows() -> None:
    outcome = simulate(config(Layout.SPLIT), nothing, trace(duration_s=30.0))
    assert "<b>" not in html_report(outcome, title="<b>", configuration="<b>")


def test_servegen_reader_keeps_sizes_and_multiplies_images(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "day.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("t_s,client_id,text_tokens,image_count,image_tokens,output_tokens\n")
        file.write("0.0,1,75,1,252,179\n1.5,2,10,0,,12\n2.0,3,20,2,100 200,30\n")
    plain = list(servegen(path))
    assert [r.image_tokens for r in plain] == [(252,), (), (100, 200)]
    assert [r.modality for r in plain] == [Modality.IMAGE, Modality.TEXT, Modality.IMAGE]
    burst = list(servegen(path, images=lambda now_s: 3.0))
    assert burst[0].image_tokens == (252,) * 3
    assert burst[2].image_tokens == (100, 200) * 3
    assert burst[2].modality is Modality.VIDEO
