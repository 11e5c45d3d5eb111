"""This file is about ratio guards between roles: splits that keep them, moves that break none.

Every guard has the form `one lane >= c · another`, so the splits that keep all of them are closed
under the componentwise minimum and maximum: raising whatever is too small until nothing is finds
the least such split above given counts, lowering the greatest one below.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import permutations
from math import ceil, floor, inf

from epidote_planner.groups import burst_tolerance
from epidote_planner.lane import Lane

ROUNDING = 1e-9  # workers: 0.7 · 10 is 7, whatever binary fractions say
MOST_PERMUTED = 6  # lanes: those of two groups, in 720 orders
Counts = Mapping[Lane, int]


@dataclass(frozen=True, kw_only=True)
class LaneGuard:
    """`above` workers per `below` worker stay within [least, most]."""

    above: Lane
    below: Lane
    least: float
    most: float

    def excess(self, low: Counts, high: Counts) -> float:
        """Workers by which it may be broken while each lane has between `low` and `high`."""
        over = 0.0
        if self.most < inf:
            over = high.get(self.above, 0) - self.most * low.get(self.below, 0)
        return max(0.0, over, self.least * high.get(self.below, 0) - low.get(self.above, 0))


Guards = tuple[LaneGuard, ...]


def keeps(guards: Guards, counts: Counts) -> bool:
    """Whether a split breaks no guard."""
    return all(guard.excess(counts, counts) <= ROUNDING for guard in guards)


def hurts(guards: Guards, before: tuple[Counts, Counts], after: tuple[Counts, Counts]) -> bool:
    """Whether a move breaks a guard, or breaks it further; `before`, `after`: (low, high)."""
    return any(guard.excess(*after) > guard.excess(*before) + ROUNDING for guard in guards)


def raised(counts: Counts, guards: Guards, most: Counts) -> dict[Lane, int] | None:
    """The least split from `counts` on that keeps every guard; None: it is over `most`."""
    split = dict(counts)
    changed = True
    while changed:
        if any(count > most[lane] for lane, count in split.items()):
            return None
        changed = False
        for guard in guards:
            above, below = guard.above, guard.below
            if split[above] < guard.least * split[below] - ROUNDING:
                wanted = ceil(guard.least * split[below] - ROUNDING)
                split[above] = max(split[above] + 1, wanted)
                changed = True
            if guard.most < inf and split[above] > guard.most * split[below] + ROUNDING:
                wanted = ceil(split[above] / guard.most - ROUNDING)
                split[below] = max(split[below] + 1, wanted)
                changed = True
    return split


def lowered(counts: Counts, guards: Guards) -> dict[Lane, int]:
    """The greatest split up to `counts` that keeps every guard; none at all keeps them, too."""
    split = dict(counts)
    changed = True
    while changed:
        changed = False
        for guard in guards:
            above, below = guard.above, guard.below
            if guard.most < inf and split[above] > guard.most * split[below] + ROUNDING:
                wanted = floor(guard.most * split[below] + ROUNDING)
                split[above] = min(split[above] - 1, wanted)
                changed = True
            if split[above] < guard.least * split[below] - ROUNDING:
                wanted = floor(split[above] / guard.least + ROUNDING)
                split[below] = min(split[below] - 1, wanted)
                changed = True
    return split


def within(needs: Counts, guards: Guards, least: Counts, most: Counts) -> dict[Lane, int]:
    """The needs as far as guards and bounds allow: raised, or where that is too much, cut.

    Where no split keeps everything (held lanes may not move), the needs inside their bounds.
    """
    inside = {lane: min(max(count, least[lane]), most[lane]) for lane, count in needs.items()}
    if not guards:
        return inside
    if (up := raised(inside, guards, most)) is not None:
        return up
    up = raised_as_far(inside, guards, most)
    down = lowered(up, guards)
    return down if all(count >= least[lane] for lane, count in down.items()) else inside


def raised_as_far(counts: Counts, guards: Guards, most: Counts) -> dict[Lane, int]:
    """`raised` without its end: lanes stop at `most`, and some guard stays broken."""
    split, before = dict(counts), dict[Lane, int]()
    while split != before:
        before = dict(split)
        for guard in guards:
            wanted = ceil(guard.least * split[guard.below] - ROUNDING)
            split[guard.above] = min(most[guard.above], max(split[guard.above], wanted))
            wanted = ceil(split[guard.above] / guard.most - ROUNDING) if guard.most < inf else 0
            split[guard.below] = min(most[guard.below], max(split[guard.below], wanted))
    return split


def share_guarded(
    allocation: Counts, loads: Mapping[Lane, float], guards: Guards, most: Counts, spare: int
) -> dict[Lane, int]:
    """`share_spare` under guards: a worker brings along those that its guards ask for.

    Where nothing keeps the guards already, growth only must not hurt them.
    """
    shared = dict(allocation)
    while spare > 0:
        lanes = [lane for lane, count in shared.items() if count < most[lane]]
        lanes.sort(key=lambda lane: (burst_tolerance(shared[lane], loads.get(lane, 0.0)), lane))
        for lane in lanes:
            one_more = {**shared, lane: shared[lane] + 1}
            grown = raised(one_more, guards, most)
            if grown is None or sum(grown.values()) - sum(shared.values()) > spare:
                if hurts(guards, (shared, shared), (one_more, one_more)):
                    continue
                grown = one_more
            spare -= sum(grown.values()) - sum(shared.values())
            shared = grown
            break
        else:
            break
    return shared


def safe_order(changes: Mapping[Lane, int], counts: Counts, guards: Guards) -> list[Lane]:
    """An order of growth in which no guard is hurt on the way; else, in which least of them are."""
    lanes = sorted(changes)
    if not guards or len(lanes) > MOST_PERMUTED:
        return lanes

    def broken(order: Iterable[Lane]) -> float:
        now, over = dict(counts), 0.0
        for lane in order:
            now[lane] = now.get(lane, 0) + changes[lane]
            over += sum(guard.excess(now, now) for guard in guards)
        return over

    return list(min(permutations(lanes), key=broken))
