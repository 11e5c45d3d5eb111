"""The client's own figures, and when they void a run."""

from array import array
from dataclasses import replace

import pytest

from epidote_loadgen.measures.histogram import Histogram
from epidote_loadgen.plan import Limits
from epidote_loadgen.records import RequestAttributes, RequestRecord, RequestStatus, SelfWatch
from epidote_loadgen.runner.part import share_of
from epidote_loadgen.runner.self_watch import PartWatch, join_watches, void_reason

LIMITS = Limits(max_lateness_s=0.05)
FINE = SelfWatch(
    num_processes=1,
    cpu_s=1.0,
    cpu_utilization=0.3,
    loop_lag_p99_s=0.001,
    loop_lag_max_s=0.2,
    lateness_p50_s=0.0001,
    lateness_p99_s=0.001,
    lateness_max_s=0.3,
    max_in_flight=10,
    num_connections=10,
    num_socket_errors=0,
    prepare_waits=0,
)


def test_a_client_that_was_on_time_voids_nothing() -> None:
    assert void_reason(FINE, LIMITS, 1000) == ""


@pytest.mark.parametrize(
    ("watch", "reason"),
    [
        (replace(FINE, lateness_p99_s=0.08, cpu_utilization=0.99), "CPU was 99% busy; use more"),
        (replace(FINE, lateness_p99_s=0.08, prepare_waits=3), "payloads were not made in time"),
        (replace(FINE, lateness_p99_s=0.08, cpu_wait_ratio=0.4), "for a processor 40% of the time"),
        (replace(FINE, lateness_p99_s=0.08), "event loop lagged by up to 200 ms"),
        (replace(FINE, lateness_p99_s=0.08), "p99 80.0 ms, 50 ms are allowed"),
        (replace(FINE, loop_lag_p99_s=0.06), "replies were timed late"),
        (replace(FINE, num_socket_errors=5), "5 connections found no descriptor or port"),
    ],
)
def test_a_client_that_was_the_bottleneck_says_how(watch: SelfWatch, reason: str) -> None:
    assert reason in void_reason(watch, LIMITS, 1000)


def record(late_s: float, *, waited_s: float = 0.0, connect_s: float = 0.0) -> RequestRecord:
    return RequestRecord(
        index=0,
        class_name="any",
        attributes=RequestAttributes(),
        status=RequestStatus.OK,
        intended_send_s=1.0,
        sent_s=1.0 + late_s,
        waited_for_cap_s=waited_s,
        connect_s=connect_s,
        content_offsets_s=array("f", [late_s + 0.1]),
    )


def test_waits_that_were_asked_for_and_slow_handshakes_are_no_lateness_of_ours() -> None:
    part = PartWatch(
        cpu_s=2.0,
        wall_s=10.0,
        lag=Histogram(),
        max_in_flight=3,
        num_connections=2,
        num_socket_errors=0,
        prepare_waits=0,
    )
    records = [record(2.001, waited_s=2.0), record(0.301, connect_s=0.3), record(0.001)]
    watch = join_watches([part, replace(part, cpu_s=5.0)], records)
    assert watch.lateness_max_s == pytest.approx(0.001, abs=1e-6)
    assert (watch.cpu_s, watch.cpu_utilization) == (7.0, 0.5)
    assert (watch.num_processes, watch.max_in_flight, watch.num_connections) == (2, 6, 4)


def test_limits_are_divided_without_loss() -> None:
    limits = Limits(max_in_flight=10, max_connections=7)
    shares = [share_of(limits, part, 3) for part in range(3)]
    assert [share.max_in_flight for share in shares] == [4, 3, 3]
    assert [share.max_connections for share in shares] == [3, 2, 2]
    assert share_of(Limits(), 0, 5).max_in_flight is None
