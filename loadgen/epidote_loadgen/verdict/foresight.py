"""This file is about what a plan can't show, seen before anything is sent."""

from collections.abc import Mapping, Sequence

from epidote_loadgen.slo import SloClass, SloTable
from epidote_loadgen.verdict.interval import each_of, more_requests


def too_few(
    expected: Mapping[str, float], slo: SloTable, *, confidence: float = 0.95
) -> Sequence[str]:
    """A line for each objective that the plan can't show to hold, even if every request meets it.

    `expected` is the number of requests by class of the workload.

    >>> from epidote_loadgen.slo import Objective
    >>> table = SloTable(classes=(SloClass(name="all", objectives=(Objective(ttft_s=1.0),)),))
    >>> too_few({"chat": 400.0}, table), len(too_few({"chat": 380.0}, table))
    ([], 1)
    """
    confidence = each_of(confidence, slo.num_objectives)
    found = []
    for slo_class in slo.classes:
        num = round(_most(expected, slo_class))
        for objective in slo_class.objectives:
            # Of the smallest number, all met: what a perfect run would need.
            needed = 1 + (more_requests(1, 1, objective.ratio, confidence=confidence) or 0)
            if num < needed:
                found.append(
                    f"{slo_class.name}: {objective.name} for {objective.ratio:g} of the requests "
                    f"can't be shown by about {num}; it takes {needed} even if all keep it: send "
                    "more, or promise a smaller share"
                )
    return found


def _most(expected: Mapping[str, float], slo_class: SloClass) -> float:
    """At most so many requests fall into the class: what else it asks of them is not known yet."""
    names = slo_class.match.class_names
    return sum(num for name, num in expected.items() if not names or name in names)
