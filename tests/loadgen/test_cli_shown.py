"""What a run shows at its end, in terminals of any width."""

import io
from array import array
from dataclasses import replace

import pytest

from epidote_loadgen.arrivals.closed_loop import ClosedLoop
from epidote_loadgen.cli_results import show
from epidote_loadgen.consoles import FrankConsole
from epidote_loadgen.fakes import SameRequest
from epidote_loadgen.plan import RunPlan, Target
from epidote_loadgen.records import RequestAttributes, RequestRecord, RequestStatus
from epidote_loadgen.runner.never_sent import never_sent
from epidote_loadgen.slo import Objective, SloClass, SloTable
from epidote_loadgen.verdict.verdict import judge

SLO = SloTable(
    classes=(
        SloClass(
            name="two-images-of-tenant-red",
            objectives=(
                Objective(ttft_s=1.4, tpot_s=0.04, itl_s=0.05, e2e_s=12.0, ratio=0.9),
                Objective(correct=True, ratio=0.8),
                Objective(ttft_s=0.01),
            ),
        ),
    )
)
RECORDS = tuple(
    RequestRecord(
        index=i,
        class_name="look",
        attributes=RequestAttributes(),
        status=RequestStatus.OK,
        intended_send_s=0.1 * i,
        sent_s=0.1 * i,
        end_s=0.1 * i + 12.3456,
        content_offsets_s=array("f", [10.123]),
    )
    for i in range(700)
)


@pytest.mark.parametrize("width", [50, 80, 200])
def test_no_word_of_the_verdict_and_no_figure_is_cut(width: int) -> None:
    plan = RunPlan(
        target=Target(url="http://h"),
        arrivals=ClosedLoop(weights={"look": 1.0}, num_users=1, num_requests=1),
        workload=SameRequest(),
        slo=SLO,
    )
    shown = io.StringIO()
    result = replace(never_sent(plan), records=RECORDS, duration_s=70.0)
    console = FrankConsole(file=shown, width=width)
    show(result, SLO, judge(RECORDS, SLO), console)
    text = shown.getvalue()
    assert "…" not in text
    assert text.startswith("FAIL")
    for word in ("FAIL", "INCONCLUSIVE", "verdict"):
        assert any(line.rstrip().endswith(word) for line in text.splitlines())
