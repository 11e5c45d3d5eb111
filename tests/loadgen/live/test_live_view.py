"""The live view tells rates, latencies against promises and errors, in a terminal or a log."""

import io
from array import array
from typing import Any

from rich.console import Console

from epidote_loadgen.arrivals.rate import constant
from epidote_loadgen.arrivals.schedule import ArrivalStream, OpenLoop
from epidote_loadgen.live.dashboard import dashboard
from epidote_loadgen.live.run_state import RunState
from epidote_loadgen.live.view import LiveView
from epidote_loadgen.plan import RunPlan, Target
from epidote_loadgen.records import Progress, RequestAttributes, RequestRecord, RequestStatus
from epidote_loadgen.slo import Objective, SloClass, SloTable
from epidote_loadgen.workload.mixed import MixedWorkload


def plan(**more: Any) -> RunPlan:
    stream = ArrivalStream(weights={"c": 1.0}, rate=constant(5.0), duration_s=60.0)
    slo = SloClass(
        name="chat", objectives=(Objective(ttft_s=0.5, ratio=0.9), Objective(e2e_s=9.0, ratio=0.5))
    )
    return RunPlan(
        **{
            "target": Target(url="http://127.0.0.1:1"),
            "arrivals": OpenLoop(streams=(stream,)),
            "workload": MixedWorkload({}),
            "slo": SloTable(classes=(slo,)),
            "duration_s": 60.0,
            "config_digest": "abc123",
        }
        | more
    )


def record(index: int, ttft_s: float) -> RequestRecord:
    return RequestRecord(
        index=index,
        class_name="c",
        attributes=RequestAttributes(),
        status=RequestStatus.OK,
        intended_send_s=0.0,
        sent_s=0.0,
        end_s=ttft_s + 0.1,
        content_offsets_s=array("f", [ttft_s, ttft_s + 0.1]),
        output_tokens=2,
    )


LOST = RequestRecord(
    index=99,
    class_name="c",
    attributes=RequestAttributes(),
    status=RequestStatus.RESET,
    intended_send_s=0.0,
    error="connection reset by peer",
)


def progress(at_s: float, *recent: RequestRecord, **more: Any) -> Progress:
    return Progress(
        **{
            "at_s": at_s,
            "planned_duration_s": 60.0,
            "asked_rps": 5.0,
            "sent_rps": 4.9,
            "finished_rps": 4.5,
            "num_sent": 10,
            "num_in_flight": 3,
            "num_waiting": 0,
            "recent": recent,
            "cpu_utilization": 0.25,
            "loop_lag_s": 0.001,
        }
        | more
    )


def shown(state: RunState, *, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(dashboard(state))
    return capture.get()


def test_a_dashboard_before_anything_happened_is_drawn() -> None:
    text = shown(RunState(plan()))
    assert "0:00 / 1:00" in text
    assert "chat" in text


def test_a_dashboard_tells_rates_latencies_promises_and_errors() -> None:
    state = RunState(plan())
    state.add(progress(12.0, *(record(i, 0.2) for i in range(50)), LOST, num_waiting=4))
    text = shown(state)
    for part in (
        "0:12 / 1:00",
        "20%",
        "5.0/s",
        "4.5/s",
        "3 (+4 held back)",
        "51 done, 50 ok",
        "TTFT <= 500 ms for 90 %",
        "98.04%",
        "200 ms",
        "100 ms",
        "not answered: reset 1",
        "1 × connection reset by peer",
        "CPU 25% of a core",
        "abc123",
    ):
        assert part in text, part


def test_a_narrow_terminal_gets_a_dashboard_too() -> None:
    state = RunState(plan())
    state.add(progress(70.0, record(0, 0.2)))
    assert "draining" in shown(state, width=60)


def test_a_run_of_unknown_length_has_no_bar() -> None:
    state = RunState(plan(duration_s=None))
    state.add(progress(3.0))
    assert "until all requests are answered" in shown(state)


def test_standings_are_open_until_they_are_sure() -> None:
    state = RunState(plan())
    assert state.standing("chat", 0) == (1.0, "open")
    state.add(progress(1.0, *(record(i, 0.2) for i in range(5))))
    assert state.standing("chat", 0) == (1.0, "open")
    state.add(progress(2.0, *(record(i, 0.2) for i in range(100))))
    assert state.standing("chat", 0) == (1.0, "good")
    state.add(progress(3.0, *(record(i, 0.9) for i in range(100))))
    share, standing = state.standing("chat", 0)
    assert (round(share, 3), standing) == (0.512, "bad")
    assert state.standing("chat", 1)[1] == "good"


def test_a_log_gets_a_plain_line_now_and_then() -> None:
    file = io.StringIO()
    with LiveView(plan(), console=Console(file=file, width=80)) as view:
        for at in range(12):
            view.update(progress(float(at), record(at, 0.2), *([LOST] if at == 2 else [])))
    lines = file.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("0:05 | asked 5.0/s sent 4.9/s done 4.5/s | in flight 3 | 6/7 ok")
    assert "TTFT p50 200 p99 200 ms" in lines[1]
    assert "chat 85.71% of 90%" in lines[1]
    assert lines[1].endswith("reset 1")
    assert "\x1b" not in file.getvalue()


def test_a_terminal_gets_the_dashboard_redrawn_in_place() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True)
    with LiveView(plan(), console=console) as view:
        view.update(progress(1.0, record(0, 0.2)))
        view.update(progress(2.0, record(1, 0.2)))
    assert "\x1b[1A" in file.getvalue()  # the cursor went up again
    assert "2 done, 2 ok" in file.getvalue()
