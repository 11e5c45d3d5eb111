"""This file is about choosing a policy's parameters: the same search for ours and for rivals.

Coordinate descent over a small grid: cheapest fleet among the parameters that reach the wanted
attainment, else the best attainment. Parameters are chosen on one part of the data and reported
on another; the search never sees the second.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from epidote_loadgen.simulate.outcome import Outcome

Values = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Found:
    """The best parameters, their outcome, and how many runs it took."""

    values: Values
    outcome: Outcome
    num_runs: int


def tune(
    grid: Mapping[str, Sequence[float]],
    run: Callable[[Values], Outcome],
    *,
    attainment: float,
    start: Values | None = None,
    rounds: int = 2,
) -> Found:
    """Try each parameter's values in turn while the others stay, until nothing improves."""
    best = dict(start) if start else {name: values[0] for name, values in grid.items()}
    seen: dict[tuple[float, ...], Outcome] = {}

    def outcome_of(values: Values) -> Outcome:
        key = tuple(values[name] for name in grid)
        if key not in seen:
            seen[key] = run(values)
        return seen[key]

    for _ in range(rounds):
        before = dict(best)
        for name, candidates in grid.items():
            best = min(
                ({**best, name: value} for value in candidates),
                key=lambda values: rank(outcome_of(values), attainment),
            )
        if best == before:
            break
    return Found(values=best, outcome=outcome_of(best), num_runs=len(seen))


def rank(outcome: Outcome, attainment: float) -> tuple[float, float]:
    """Smaller is better: first the missing attainment, then the GPU-seconds."""
    return max(0.0, attainment - outcome.attainment), outcome.gpu_seconds
