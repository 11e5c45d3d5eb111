"""What a status says of experts that move, of moves that don't end, and of orders nobody took."""

from typing import Any

import pytest

from epidote_operator.act.executor import describe
from epidote_operator.spec.scaling import ScalingMode
from epidote_operator.spec.service_status import DecisionStatus, MultimodalServiceStatus
from epidote_operator.status.decisions import is_changed
from epidote_operator.status.experts import NOT_MOVED, ExpertsPlaced
from epidote_operator.status.fleet import Done, Fleet, Outcome
from epidote_operator.status.news import WARNING, News, news
from epidote_operator.status.render import Report, render
from epidote_planner import ClusterSnapshot, plan
from epidote_planner.decision import MoveExperts
from epidote_planner.experts import ExpertMove
from epidote_planner.fakes import policy

BEFORE = MultimodalServiceStatus()
MOVING = ExpertsPlaced(num_workers=3, num_moving=1, target="abc", imbalance=1.5)
LATE = ExpertsPlaced(num_workers=3, num_moving=1, target="abc", imbalance=1.5, num_late=1)
PLACED = ExpertsPlaced(num_workers=3, num_moving=0, target="abc", imbalance=1.04)


def shown(
    placed: ExpertsPlaced | None, outcome: Outcome | None = None, *, before: Any = BEFORE
) -> tuple[MultimodalServiceStatus, DecisionStatus | None]:
    report = Report(
        now_s=100.0,
        fleet=Fleet(at_s=100.0),
        plan=plan(ClusterSnapshot(now_s=100.0), policy(), None),
        outcome=outcome or Outcome(),
        mode=ScalingMode.AUTO,
        policy=policy(),
        experts_placed=placed,
    )
    return render(report, before)


@pytest.mark.parametrize(
    ("placed", "told"),
    [
        (PLACED, ("True", "Placed", "the busiest rank has 1.04 times the mean")),
        (MOVING, ("False", "Moving", "placement abc is in force on 2 of 3 workers")),
        (LATE, ("False", "MoveLate", "it is tried again")),
    ],
)
def test_workers_that_hold_whole_experts_have_a_condition(
    placed: ExpertsPlaced, told: tuple[str, str, str]
) -> None:
    (found,) = (c for c in shown(placed)[0].conditions if c.type == "ExpertsPlaced")
    assert (found.status.value, found.reason) == told[:2]
    assert told[2] in found.message


def test_workers_that_share_every_expert_have_none() -> None:
    assert all(c.type != "ExpertsPlaced" for c in shown(None)[0].conditions)


def test_a_move_that_is_late_is_news_once_and_one_under_way_is_none() -> None:
    moving = shown(MOVING)[0]
    late = shown(LATE, before=moving)[0]

    def told(before: MultimodalServiceStatus, after: MultimodalServiceStatus) -> list[News]:
        return [item for item in news(before, after, None) if item.reason == "MoveLate"]

    (item,) = told(moving, late)
    assert item.kind == WARNING
    assert told(late, shown(LATE, before=late)[0]) == []
    assert told(BEFORE, moving) == []


def test_a_decision_whose_order_nobody_took_is_not_carried_out() -> None:
    refused = Outcome(done=(Done(verb=NOT_MOVED, what="7 expert slots to abc: no"),))
    carried_out = []
    for outcome in (refused, Outcome()):
        decision = shown(MOVING, outcome)[0].decisions[0]
        carried_out.append(decision.carried_out)
    assert carried_out == [False, True]


def test_advice_to_move_experts_is_told_once_though_every_look_counts_otherwise() -> None:
    def advised(number: int, *others: str) -> DecisionStatus:
        decision = shown(PLACED)[0].decisions[0]
        move = describe(
            MoveExperts(
                move=ExpertMove(name=f"p{number}", num_moved=number, imbalance=1.1, migration_s=1.0)
            )
        )
        return decision.model_copy(update={"actions": (move, *others)})

    assert not is_changed(advised(12), advised(7))
    assert is_changed(advised(12, "2 decode"), advised(7))
