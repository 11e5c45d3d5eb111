"""Verdicts and exit codes, situation by situation."""

from array import array
from collections.abc import Collection
from dataclasses import replace
from random import Random

import pytest

from epidote_loadgen.records import RequestAttributes, RequestRecord, RequestStatus
from epidote_loadgen.slo import Match, Objective, SloClass, SloTable
from epidote_loadgen.verdict.verdict import ExitCode, Outcome, judge


def table(ratio: float = 0.99) -> SloTable:
    return SloTable(
        classes=(SloClass(name="all", objectives=(Objective(ttft_s=1.0, ratio=ratio),)),)
    )


def records(
    num: int,
    *,
    slow: Collection[int] = (),
    status: RequestStatus = RequestStatus.OK,
    class_name: str = "chat",
) -> list[RequestRecord]:
    return [
        RequestRecord(
            index=i,
            class_name=class_name,
            attributes=RequestAttributes(),
            status=status,
            intended_send_s=0.1 * i,
            sent_s=0.1 * i,
            end_s=0.1 * i + 3.0,
            content_offsets_s=array("f", [2.0 if i in slow else 0.1]),
            error="" if status is RequestStatus.OK else "connection refused",
        )
        for i in range(num)
    ]


def test_enough_requests_in_time_pass() -> None:
    verdict = judge(records(500), table())
    assert (verdict.outcome, verdict.exit_code) == (Outcome.PASS, ExitCode.MET)


def test_a_clear_miss_fails() -> None:
    verdict = judge(records(500, slow=range(0, 500, 10)), table())
    assert (verdict.outcome, verdict.exit_code) == (Outcome.FAIL, ExitCode.MISSED)
    assert "held for 0.9000 of 500 requests, 0.99 was promised" in verdict.reason


def test_too_few_requests_are_inconclusive_and_it_says_how_many_settle_it() -> None:
    verdict = judge(records(100), table())
    assert (verdict.outcome, verdict.exit_code) == (Outcome.INCONCLUSIVE, ExitCode.UNDECIDED)
    assert verdict.objectives[0].more_requests == 281
    assert "about 281 more requests would settle it" in verdict.reason
    assert judge(records(381), table()).outcome is Outcome.PASS


def test_a_class_that_no_request_belonged_to_says_so() -> None:
    verdict = judge([], table())
    assert verdict.exit_code is ExitCode.UNDECIDED
    assert "no request of this class was sent" in verdict.reason
    assert "about 381 could settle it" in verdict.reason


def test_a_stall_makes_the_same_share_less_sure() -> None:
    spread = judge(records(3000, slow=range(0, 3000, 250)), table())
    stalled = judge(records(3000, slow=range(1000, 1012)), table())
    assert spread.objectives[0].attainment == stalled.objectives[0].attainment
    assert spread.outcome is Outcome.PASS
    assert stalled.outcome is Outcome.INCONCLUSIVE
    assert stalled.objectives[0].design_effect > 2.0


@pytest.mark.parametrize(
    "status", [s for s in RequestStatus if s not in (RequestStatus.OK, RequestStatus.CONNECT)]
)
def test_requests_that_ended_badly_are_misses(status: RequestStatus) -> None:
    assert judge(records(500, status=status), table()).exit_code is ExitCode.MISSED


def test_a_target_that_never_answered_is_unreachable() -> None:
    verdict = judge(records(50, status=RequestStatus.CONNECT), table())
    assert verdict.exit_code is ExitCode.UNREACHABLE
    assert "connection refused" in verdict.reason


def test_a_void_run_says_nothing_about_the_service() -> None:
    verdict = judge(records(500), table(), void_reason="its event loop lagged")
    assert (verdict.outcome, verdict.exit_code) == (Outcome.INCONCLUSIVE, ExitCode.UNDECIDED)
    assert "the client was the bottleneck: its event loop lagged" in verdict.reason


def test_an_interrupted_run_can_fail_but_not_pass() -> None:
    assert judge(records(500), table(), interrupted=True).exit_code is ExitCode.UNDECIDED
    slow = records(500, slow=range(250))
    assert judge(slow, table(), interrupted=True).exit_code is ExitCode.MISSED


def test_one_failing_class_fails_the_run() -> None:
    slo = SloTable(
        classes=(
            SloClass(
                name="never",
                match=Match(class_names=frozenset({"other"})),
                objectives=(Objective(ttft_s=1.0),),
            ),
            SloClass(name="easy", objectives=(Objective(ttft_s=5.0), Objective(ttft_s=0.01))),
        )
    )
    verdict = judge(records(700), slo)
    assert [v.outcome for v in verdict.objectives] == [
        Outcome.INCONCLUSIVE,  # nothing of that class came
        Outcome.PASS,
        Outcome.FAIL,
    ]
    assert verdict.outcome is Outcome.FAIL


def test_records_may_come_in_any_order() -> None:
    some = records(3000, slow=range(1000, 1012))
    assert judge(some[::-1], table()) == judge(some, table())


def test_without_promises_there_is_no_verdict() -> None:
    verdict = judge(records(500), SloTable(classes=()))
    assert verdict.exit_code is ExitCode.UNDECIDED
    assert "nothing was promised" in verdict.reason


RIGHT = SloTable(classes=(SloClass(name="all", objectives=(Objective(correct=True, ratio=0.8),)),))


def test_answers_that_nobody_scored_show_nothing_about_being_right() -> None:
    verdict = judge(records(500), RIGHT)
    assert (verdict.outcome, verdict.exit_code) == (Outcome.INCONCLUSIVE, ExitCode.UNDECIDED)
    assert verdict.objectives[0].num_requests == 0
    assert "no answer was scored" in verdict.reason


def test_the_share_of_right_answers_is_of_the_scored_ones_and_of_failures_with_an_answer() -> None:
    unscored = records(400)
    right = [replace(r, expects_answer=True, correct=True) for r in records(100)]
    wrong = [replace(r, expects_answer=True, correct=False) for r in records(50)]
    failed = [replace(r, expects_answer=True) for r in records(50, status=RequestStatus.TIMEOUT)]
    verdict = judge([*unscored, *right, *wrong, *failed], RIGHT)
    assert (verdict.objectives[0].num_met, verdict.objectives[0].num_requests) == (100, 200)
    assert verdict.exit_code is ExitCode.MISSED


def test_what_the_interrupt_cut_decides_nothing_and_is_told() -> None:
    cut = [replace(r, is_cut=True) for r in records(400, status=RequestStatus.UNFINISHED)]
    verdict = judge([*records(500), *cut], table(), interrupted=True)
    assert (verdict.outcome, verdict.exit_code) == (Outcome.INCONCLUSIVE, ExitCode.UNDECIDED)
    assert (verdict.objectives[0].num_met, verdict.objectives[0].num_requests) == (500, 500)
    assert verdict.num_cut == 400
    assert "400 requests cut by the interrupt are left out" in verdict.reason
    alone = judge(cut, table(), interrupted=True)
    assert "no request of this class had come to its end" in alone.reason


def test_time_outs_before_an_interrupt_stay_misses() -> None:
    timed_out = records(250, status=RequestStatus.TIMEOUT)
    verdict = judge([*records(250), *timed_out], table(), interrupted=True)
    assert verdict.exit_code is ExitCode.MISSED


def test_twenty_promises_are_no_likelier_to_be_judged_wrong_than_one() -> None:
    """Every promise is kept by just its share: each verdict but INCONCLUSIVE is wrong."""
    rng = Random(7)
    names = [f"c{i}" for i in range(20)]
    slo = SloTable(
        classes=tuple(
            SloClass(
                name=name,
                match=Match(class_names=frozenset({name})),
                objectives=(Objective(ttft_s=1.0, ratio=0.9),),
            )
            for name in names
        )
    )
    num_wrong = 0
    for _ in range(40):
        found = [
            record
            for name in names
            for record in records(
                200, slow={k for k in range(200) if rng.random() < 0.1}, class_name=name
            )
        ]
        verdict = judge(found, slo)
        assert verdict.each_confidence == pytest.approx(0.9975)
        num_wrong += any(v.outcome is Outcome.FAIL for v in verdict.objectives)
    # At 95 % each it would be some 16 of the 40 runs.
    assert num_wrong <= 5


def test_the_verdict_says_how_sure_many_promises_are_together() -> None:
    both = (Objective(ttft_s=5.0), Objective(ttft_s=6.0))
    verdict = judge(records(500), SloTable(classes=(SloClass(name="all", objectives=both),)))
    assert "2 promises, each at 97.5 %, so that all intervals hold together at 95 %" in (
        verdict.reason
    )
    assert verdict.outcome is Outcome.PASS
    # What one promise could show is too few for two.
    fewer = judge(records(400), SloTable(classes=(SloClass(name="all", objectives=both),)))
    assert fewer.outcome is Outcome.INCONCLUSIVE
    assert fewer.objectives[0].more_requests == 98
    assert "promises" not in judge(records(500), table()).reason
