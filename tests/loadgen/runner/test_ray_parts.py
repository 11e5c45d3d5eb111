"""A run spread over a Ray cluster does what the same run on one host does."""

import multiprocessing
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from epidote_loadgen.arrivals.rate import constant
from epidote_loadgen.arrivals.schedule import ArrivalStream, OpenLoop
from epidote_loadgen.fakes import SameRequest
from epidote_loadgen.measures.summary import TOTAL, summarise
from epidote_loadgen.mock_server.law import LatencyLaw
from epidote_loadgen.mock_server.process import ask, mock_process
from epidote_loadgen.mock_server.server import MockSettings
from epidote_loadgen.plan import Limits, RunPlan, Target
from epidote_loadgen.records import Progress
from epidote_loadgen.runner import ray_parts
from epidote_loadgen.runner.child import Failed, Start
from epidote_loadgen.runner.ray_parts import RayLauncher, RayPart
from epidote_loadgen.runner.running import Interrupt, run
from epidote_loadgen.slo import SloTable

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def launcher() -> Iterator[RayLauncher]:
    ray.init(
        address="local",  # never a cluster that happens to run here
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 << 20,
        configure_logging=False,
        _node_ip_address="127.0.0.1",
    )
    try:
        yield RayLauncher("")
    finally:
        ray.shutdown()


def plan(url: str, duration_s: float) -> RunPlan:
    stream = ArrivalStream(weights={"chat": 1.0}, rate=constant(100.0), duration_s=duration_s)
    return RunPlan(
        target=Target(url=url),
        arrivals=OpenLoop(streams=(stream,), seed=5),
        workload=SameRequest(),
        slo=SloTable(classes=()),
        # A request that a crowded machine lost must not be waited for as long as by default.
        limits=Limits(max_lateness_s=60.0, request_timeout_s=60.0, drain_s=60.0),
        num_processes=2,
    )


def test_a_run_on_ray_is_merged_exactly_and_an_interrupt_reaches_every_node(
    launcher: RayLauncher,
) -> None:
    with mock_process(MockSettings(law=LatencyLaw(ttft_s=0.002, itl_s=0.001))) as url:
        asked = plan(url, 2.0)
        assert isinstance(asked.arrivals, OpenLoop)
        result = run(asked, launcher=launcher)
        assert [r.index for r in result.records] == [s.index for s in asked.arrivals.slots()]
        total = summarise(result.records, asked.slo)[TOTAL]
        assert total.num_ok == len(ask(url, "GET", "/mock/truth")["served"]) == len(result.records)
        assert result.self_watch.num_processes == 2
        assert result.void_reason == ""

        interrupt, told = Interrupt(), set[int]()

        def look(progress: Progress) -> None:
            told.update(record.index % 2 for record in progress.recent)
            if told == {0, 1}:
                interrupt.stop.set()

        stopped = run(plan(url, 600.0), launcher=launcher, interrupt=interrupt, on_progress=look)
        assert stopped.interrupted
        assert {r.index % 2 for r in stopped.records} == {0, 1}


def test_the_last_words_of_a_child_arrive_though_it_has_ended_by_then() -> None:
    """Their loss, in one run of many, was told as the death of its process."""
    ours, theirs = multiprocessing.Pipe()
    part = object.__new__(ray_parts._RemotePart)
    part._part = SimpleNamespace(pipe=ours)  # type: ignore[assignment]
    for word in ("records", "done"):
        theirs.send(word)
    theirs.close()
    assert part.take() == ["records", "done"]
    with pytest.raises(EOFError):
        part.take()


class DeafActor:
    """Answers, has nothing to say, and can't be started."""

    def take(self) -> list[object]:
        return []

    def start(self, start_unix_s: float) -> None:
        raise BrokenPipeError("its process is gone")


def failure_of(part: RayPart) -> str:
    assert part.pipe.poll(120.0)
    failed = part.pipe.recv()
    assert isinstance(failed, Failed)
    part.end(deadline_s=0.0)
    return failed.message


def test_a_part_that_cannot_be_started_ends_with_its_reason(launcher: RayLauncher) -> None:
    part = RayPart(ray.remote(num_cpus=0, max_concurrency=4)(DeafActor).remote(), 3)
    part.pipe.send(Start(0.0))
    message = failure_of(part)
    assert "process 3 of the load generator died" in message
    assert "could not be started" in message
    assert "its process is gone" in message


def test_a_part_that_no_node_has_room_for_is_not_waited_for(launcher: RayLauncher) -> None:
    part = RayPart(ray.remote(num_cpus=999)(DeafActor).remote(), 1, begin_s=0.5)
    assert "process 1 of the load generator died: its Ray actor did not begin" in failure_of(part)
