"""This file is about whether any split of workers into roles keeps every bound and ratio at once.

All constraints have the form `one role >= c · another`, so the splits that keep them are closed
under the componentwise minimum and maximum: there is one smallest and one largest of them, and
raising (or lowering) whatever is violated until nothing is, finds it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from epidote_operator.spec.role_bounds import RatioSpec, RoleName


@dataclass(frozen=True, kw_only=True)
class Range:
    """Least and most workers of a role."""

    least: int
    most: int


def smallest_split(
    ranges: Mapping[RoleName, Range], ratios: Iterable[RatioSpec]
) -> dict[RoleName, int] | None:
    """The split that no other one undercuts in any role; None: no split keeps everything.

    Ratios of roles without a range don't apply.

    >>> ranges = {RoleName.PREFILL: Range(least=1, most=4), RoleName.DECODE: Range(least=2, most=4)}
    >>> twice = RatioSpec(numerator=RoleName.PREFILL, denominator=RoleName.DECODE, min_percent=150)
    >>> list(smallest_split(ranges, [twice]).values())
    [3, 2]
    """
    split = {role: item.least for role, item in ranges.items()}
    rules = _applicable(ranges, ratios)
    changed = True
    while changed:
        changed = False
        for rule in rules:
            above, below = rule.numerator, rule.denominator
            if 100 * split[above] < rule.min_percent * split[below]:
                split[above] = -(-rule.min_percent * split[below] // 100)
                changed = True
            if 100 * split[above] > rule.max_percent * split[below]:
                split[below] = -(-100 * split[above] // rule.max_percent)
                changed = True
        if any(split[role] > item.most for role, item in ranges.items()):
            return None
    return split


def largest_split(
    ranges: Mapping[RoleName, Range], ratios: Iterable[RatioSpec]
) -> dict[RoleName, int] | None:
    """The split that no other one exceeds in any role; None: no split keeps everything."""
    split = {role: item.most for role, item in ranges.items()}
    rules = _applicable(ranges, ratios)
    changed = True
    while changed:
        changed = False
        for rule in rules:
            above, below = rule.numerator, rule.denominator
            if 100 * split[above] > rule.max_percent * split[below]:
                split[above] = rule.max_percent * split[below] // 100
                changed = True
            if 100 * split[above] < rule.min_percent * split[below]:
                split[below] = 100 * split[above] // rule.min_percent
                changed = True
        if any(split[role] < item.least for role, item in ranges.items()):
            return None
    return split


def _applicable(
    ranges: Mapping[RoleName, Range], ratios: Iterable[RatioSpec]
) -> tuple[RatioSpec, ...]:
    return tuple(item for item in ratios if {item.numerator, item.denominator} <= ranges.keys())
