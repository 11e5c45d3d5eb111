"""What a plan can't show is told before anything is sent."""

from epidote_loadgen.slo import Match, Objective, SloClass, SloTable
from epidote_loadgen.verdict.foresight import too_few
from epidote_loadgen.verdict.interval import wilson

LOOSE, STRICT = Objective(ttft_s=1.0, ratio=0.9), Objective(e2e_s=9.0, ratio=0.99)


def table(*, names: frozenset[str] = frozenset()) -> SloTable:
    match = Match(class_names=names)
    return SloTable(classes=(SloClass(name="all", match=match, objectives=(LOOSE, STRICT)),))


def test_each_objective_is_told_that_too_few_requests_can_show() -> None:
    [line] = too_few({"chat": 100.0}, table())
    assert line.startswith(
        "all: E2E <= 9000 ms for 0.99 of the requests can't be shown by about 100"
    )
    assert len(too_few({"chat": 10.0}, table())) == 2
    assert too_few({"chat": 1000.0}, table()) == []


def test_the_number_it_names_is_just_enough() -> None:
    [line] = too_few({"chat": 100.0}, table())
    needed = int(line.split("it takes ")[1].split()[0])
    each = 0.975  # of two promises that hold together at 95 %
    assert wilson(needed, needed, confidence=each).low >= 0.99
    assert wilson(needed - 1, needed - 1, confidence=each).low < 0.99


def test_only_requests_of_the_named_classes_count() -> None:
    expected = {"chat": 1000.0, "look": 50.0}
    assert too_few(expected, table()) == []
    assert len(too_few(expected, table(names=frozenset({"look"})))) == 1
