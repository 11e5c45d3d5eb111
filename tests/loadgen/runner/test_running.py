"""Whole runs against a mock server in a process of its own."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from epidote_loadgen.arrivals.closed_loop import ClosedLoop
from epidote_loadgen.arrivals.rate import constant
from epidote_loadgen.arrivals.schedule import ArrivalStream, OpenLoop
from epidote_loadgen.fakes import BrokenWorkload, SameRequest, StuckWorkload
from epidote_loadgen.measures.summary import summarise
from epidote_loadgen.mock_server.faults import Fault, FaultMix
from epidote_loadgen.mock_server.law import LatencyLaw
from epidote_loadgen.mock_server.process import ask, mock_process
from epidote_loadgen.mock_server.server import MockSettings
from epidote_loadgen.plan import Limits, RunPlan, Target
from epidote_loadgen.records import Progress, RequestStatus
from epidote_loadgen.runner.part import FILL_S
from epidote_loadgen.runner.preparing import MAX_AHEAD
from epidote_loadgen.runner.running import Interrupt, RunFailed, TargetUnreachable, run
from epidote_loadgen.slo import Objective, SloClass, SloTable

SLO = SloTable(classes=(SloClass(name="all", objectives=(Objective(ttft_s=30.0),)),))


def plan(url: str, *, rps: float = 100.0, duration_s: float = 1.0, seed: int = 1) -> RunPlan:
    stream = ArrivalStream(weights={"chat": 1.0}, rate=constant(rps), duration_s=duration_s)
    return RunPlan(
        target=Target(url=url),
        arrivals=OpenLoop(streams=(stream,), seed=seed),
        workload=SameRequest(),
        slo=SLO,
        limits=Limits(max_lateness_s=60.0),  # CI may be slow; lateness is not what is tried here
        seed=seed,
        duration_s=duration_s,
    )


def one_sender(url: str) -> RunPlan:
    """A minute of so many requests a second that two processes would share them."""
    return replace(plan(url, rps=3000.0, duration_s=60.0), num_processes=1)


@pytest.fixture(scope="module")
def quick() -> Iterator[str]:
    """A server that answers at once."""
    with mock_process(MockSettings(law=LatencyLaw(ttft_s=0.002, itl_s=0.001))) as url:
        yield url


def test_every_slot_becomes_one_record(quick: str) -> None:
    asked = plan(quick)
    assert isinstance(asked.arrivals, OpenLoop)
    glances: list[Progress] = []
    result = run(asked, on_progress=glances.append)
    slots = list(asked.arrivals.slots())
    assert [record.index for record in result.records] == [slot.index for slot in slots]
    assert [r.intended_send_s for r in result.records] == [s.intended_send_s for s in slots]
    assert {record.status for record in result.records} == {RequestStatus.OK}
    assert all((record.lateness_s or 0.0) >= 0.0 for record in result.records)
    assert result.void_reason == ""
    assert not result.interrupted
    assert result.self_watch.cpu_s > 0.0


def test_three_processes_do_what_one_does(quick: str) -> None:
    one = run(plan(quick))
    three = run(replace(plan(quick), num_processes=3))
    assert three.self_watch.num_processes == 3
    assert [r.intended_send_s for r in three.records] == [r.intended_send_s for r in one.records]
    counts = [
        (s.num_requests, s.num_good, s.output_tokens)
        for s in (summarise(result.records, SLO)["all"] for result in (one, three))
    ]
    assert counts[0] == counts[1]


def test_limits_are_shared_by_the_processes(quick: str) -> None:
    ask(quick, "POST", "/mock/reset")
    asked = plan(quick, rps=400.0)
    limits = replace(asked.limits, max_in_flight=3)
    result = run(replace(asked, num_processes=2, limits=limits))
    assert result.self_watch.max_in_flight <= 3
    assert ask(quick, "GET", "/mock/truth")["max_open"] <= 3
    with pytest.raises(ValueError, match="max_in_flight: 3 can't be shared by 4 processes"):
        run(replace(asked, num_processes=4, limits=limits))


def test_real_time_priority_is_taken_or_its_refusal_names_the_limit(quick: str) -> None:
    asked = plan(quick, duration_s=0.3)
    asked = replace(asked, limits=replace(asked.limits, realtime=True))
    take = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))"
    if subprocess.run([sys.executable, "-c", take], check=False, capture_output=True).returncode:
        with pytest.raises(RunFailed, match=r"limits\.realtime: not to be had here") as caught:
            run(asked)
        assert caught.value.is_usage
    else:
        assert {record.status for record in run(asked).records} == {RequestStatus.OK}


def test_a_closed_loop_never_has_more_open_than_users(quick: str) -> None:
    ask(quick, "POST", "/mock/reset")
    loop = ClosedLoop(weights={"chat": 1.0}, num_users=5, num_requests=83, think_s=0.001, seed=2)
    result = run(replace(plan(quick), arrivals=loop, num_processes=2))
    assert [record.index for record in result.records] == list(range(83))
    assert ask(quick, "GET", "/mock/truth")["max_open"] <= 5
    by_user: dict[int, float] = {}
    for record in result.records:
        user = record.index % 5
        assert record.intended_send_s >= by_user.get(user, 0.0)
        assert record.end_s is not None
        by_user[user] = record.end_s


def test_a_closed_loop_ends_with_its_time(quick: str) -> None:
    loop = ClosedLoop(weights={"chat": 1.0}, num_users=2, duration_s=0.5)
    result = run(replace(plan(quick), arrivals=loop))
    assert result.records
    assert all(record.intended_send_s < 0.5 for record in result.records)


def test_nobody_at_the_target_is_told_before_anything_is_sent() -> None:
    with pytest.raises(TargetUnreachable, match=r"http://127.0.0.1:9: .*refused"):
        run(plan("http://127.0.0.1:9"))


def test_a_payload_that_cannot_be_made_ends_the_run_with_its_reason(quick: str) -> None:
    with pytest.raises(RunFailed, match="no picture for item 0") as caught:
        run(replace(plan(quick), workload=BrokenWorkload()))
    assert caught.value.is_usage


def test_what_was_measured_before_a_payload_failed_is_kept(quick: str) -> None:
    broken = BrokenWorkload(broken_item=MAX_AHEAD + 100)  # later than what is made up front
    result = run(replace(one_sender(quick), workload=broken))
    assert 0 < len(result.records) <= MAX_AHEAD + 100
    assert f"no picture for item {MAX_AHEAD + 100}" in result.void_reason


def test_an_interrupt_keeps_what_was_measured(quick: str) -> None:
    interrupt = Interrupt()

    def look(progress: Progress) -> None:
        if progress.recent:
            interrupt.stop.set()

    result = run(plan(quick, duration_s=600.0), on_progress=look, interrupt=interrupt)
    assert result.interrupted
    assert 0 < len(result.records) < 60_000
    assert [record.index for record in result.records] == list(range(len(result.records)))
    assert {record.status for record in result.records} == {RequestStatus.OK}


def test_a_run_that_is_out_of_time_ends_as_if_interrupted(quick: str) -> None:
    endless = plan(quick, duration_s=600.0)
    bounded = replace(endless, limits=replace(endless.limits, run_timeout_s=2.0))
    result = run(bounded)
    assert result.interrupted
    assert result.duration_s >= 2.0
    assert 0 < len(result.records) < 60_000
    assert {record.status for record in result.records} == {RequestStatus.OK}


def test_a_second_interrupt_waits_for_nothing() -> None:
    interrupt = Interrupt()

    def look(progress: Progress) -> None:
        if progress.num_in_flight:
            interrupt.stop.set()
            interrupt.abandon.set()

    with mock_process(MockSettings(law=LatencyLaw(ttft_s=3600.0))) as url:
        result = run(plan(url, duration_s=600.0), on_progress=look, interrupt=interrupt)
    found = {record.status for record in result.records}
    assert RequestStatus.UNFINISHED in found
    assert found <= {RequestStatus.UNFINISHED, RequestStatus.UNSENT}  # its connection was opening
    assert all(record.is_cut for record in result.records)


@pytest.mark.parametrize("deaf", [False, True])
def test_an_interrupt_ends_a_process_that_is_still_making_the_first_payload(
    quick: str, deaf: bool
) -> None:
    interrupt = Interrupt()
    stuck = replace(plan(quick), workload=StuckWorkload(deaf=deaf))
    begun_s = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, stuck, interrupt=interrupt)
        while not load_processes():
            time.sleep(0.01)
        interrupt.stop.set()
        with pytest.raises(RunFailed, match="interrupted before the start"):
            running.result(FILL_S)
    assert time.monotonic() - begun_s < FILL_S
    assert not load_processes()


@pytest.mark.parametrize("arrivals", ["open", "closed"])
def test_an_interrupt_keeps_what_came_before_a_payload_that_never_ends(
    quick: str, arrivals: str
) -> None:
    interrupt = Interrupt()

    def look(progress: Progress) -> None:
        if progress.recent:
            interrupt.stop.set()
            interrupt.abandon.set()

    asked = replace(one_sender(quick), workload=StuckWorkload(stuck_item=MAX_AHEAD + 9))
    if arrivals == "closed":
        loop = ClosedLoop(weights={"chat": 1.0}, num_users=1, duration_s=600.0)
        asked = replace(asked, arrivals=loop, workload=StuckWorkload(stuck_item=3))
    result = run(asked, on_progress=look, interrupt=interrupt)
    assert result.interrupted
    assert result.records
    assert not load_processes()


def test_a_closed_loop_leaves_a_dead_target_in_peace() -> None:
    """It resets every connection: without a pause each user would ask thousands of times."""
    faults = FaultMix({Fault.REFUSE: 1.0})
    loop = ClosedLoop(weights={"chat": 1.0}, num_users=2, duration_s=1.0)
    with mock_process(MockSettings(faults=faults)) as url:
        result = run(replace(plan(url), arrivals=loop))
    assert {record.status for record in result.records} == {RequestStatus.RESET}
    # After 0.1, 0.2, 0.4 and 0.8 s: four within the second, fewer on a slow machine.
    assert 2 <= len(result.records) <= 2 * 4
    sends = [record.intended_send_s for record in result.records if record.index % 2 == 0]
    gaps = [later - sooner for sooner, later in itertools.pairwise(sends)]
    # A reset that came late adds to its pause; a send may be early by what its timer asks for.
    assert all(gap > 0.1 * 2**turn - 0.001 for turn, gap in enumerate(gaps))


@pytest.mark.skipif(sys.platform != "linux", reason="finds the child in /proc")
def test_a_process_that_dies_voids_the_run_and_loses_only_its_own(quick: str) -> None:
    told: set[int] = set()

    def look(progress: Progress) -> None:
        told.update(record.index % 2 for record in progress.recent)
        if told == {0, 1}:  # what the one that dies has measured is known by then
            for pid in load_processes()[:1]:
                os.kill(pid, signal.SIGKILL)

    result = run(replace(plan(quick, duration_s=600.0), num_processes=2), on_progress=look)
    assert "of the load generator died" in result.void_reason
    assert {record.index % 2 for record in result.records} == {0, 1}


def load_processes() -> list[int]:
    """The children of this process that send load."""
    pids: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread or its child ended as we looked
            for pid in (task / "children").read_text().split():
                if b"epidote_loadgen.runner\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    pids.append(int(pid))
    return pids


def test_a_server_that_never_answers_ends_with_the_patience() -> None:
    with mock_process(MockSettings(law=LatencyLaw(ttft_s=3600.0))) as url:
        asked = plan(url, rps=50.0, duration_s=0.5)
        by_drain = run(replace(asked, limits=replace(asked.limits, drain_s=1.0)))
        by_deadline = run(replace(asked, limits=replace(asked.limits, request_timeout_s=0.2)))
    found = {record.status for record in by_drain.records}
    assert RequestStatus.UNFINISHED in found
    assert found <= {RequestStatus.UNFINISHED, RequestStatus.UNSENT}  # its connection was opening
    assert not any(record.is_cut for record in by_drain.records)  # the server had its time
    assert {record.status for record in by_deadline.records} == {RequestStatus.TIMEOUT}


class Recorder:
    """A watcher that notes the times it was told, then fails."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.done = threading.Event()

    async def watch(self, now_s: object) -> None:
        assert callable(now_s)
        self.times.append(now_s())
        self.done.set()
        raise RuntimeError("the metrics page is gone")

    def result(self) -> dict[str, object]:
        return {"times": self.times}


def test_a_watcher_that_fails_does_not_fail_the_run(quick: str) -> None:
    watcher = Recorder()
    result = run(plan(quick), watcher=watcher)
    assert watcher.done.is_set()
    assert result.watch == {"times": watcher.times}
    assert result.void_reason == ""
