"""This file is about the way from one placement of a layer's experts to another, in small steps.

After each step every expert stands somewhere, as it must while requests run: whatever loses its
last slot gets one in the same step. What is left of a long ring of experts that want each other's
slots waits in one of them for the next step.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from epidote_engine.expert_spec import ExpertSlots

MOST = 4  # slots of one step: a bound on what is read ahead, and on what a step has to copy

Change = dict[int, int]  # slot → its new expert


def slot_changes(now: Sequence[int], target: Sequence[int], most: int = MOST) -> Iterator[Change]:
    """Steps of at most `most` slots, at least 2, from `now` to `target`; both have every expert.

    Each step puts at least one expert where it is to be for good, and of a larger one all but one.

    >>> list(slot_changes([0, 1, 2, 0], [2, 1, 0, 1])), list(slot_changes([0, 1], [1, 0]))
    ([{0: 2}, {2: 0}, {3: 1}], [{0: 1, 1: 0}])
    """
    here, replicas = list(now), Counter(now)
    for start in range(len(here)):
        while here[start] != target[start]:
            change = _change(here, replicas, target, start, most)
            for slot, expert in change.items():
                replicas[here[slot]] -= 1
                replicas[expert] += 1
                here[slot] = expert
            yield change


def _change(
    here: Sequence[int], replicas: Counter[int], target: Sequence[int], start: int, most: int
) -> Change:
    change, left = {start: target[start]}, Counter(replicas)
    left[target[start]] += 1
    left[here[start]] -= 1
    homeless = here[start]
    while not left[homeless]:
        if len(change) == most:
            change[start] = homeless  # what was to be there has kept its own slot
            break
        # the target has every expert, and nothing else could have put this one there
        slot = next(s for s, expert in enumerate(target) if expert == homeless and s not in change)
        change[slot] = homeless
        left[homeless] += 1
        left[here[slot]] -= 1
        homeless = here[slot]
    return change


def replica_table(layer: Sequence[int], num_experts: int, slots: ExpertSlots) -> list[list[int]]:
    """What `ops.replica_slots` reads on one rank, [E, 2 + redundant slots].

    The number of an expert's replicas, then the place of each among this rank's slots; -1: another
    rank's.

    >>> replica_table([0, 1, 0, 2], 3, ExpertSlots(num_slots=4, num_ranks=2, rank=1))
    [[2, -1, 0], [1, -1, -1], [1, 1, -1]]
    """
    width = 2 + slots.num_slots - num_experts
    table = [[0] + [-1] * (width - 1) for _ in range(num_experts)]
    for slot, expert in enumerate(layer):
        row = table[expert]
        row[0] += 1
        row[row[0]] = slot - slots.own.start if slot in slots.own else -1
    return table
