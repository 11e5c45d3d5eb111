"""This file is about where experts go: hot ones into several slots, slots spread evenly over ranks.

Layers are placed one by one, since a step waits for the busiest rank of each of them:

    replicate  every expert has a slot; each further one goes to the expert with most tokens a slot
    pack       heaviest slot first, onto the rank with the fewest tokens that has room: how even
               the layer can be
    swap       from what is there, slots of the busiest and the idlest rank change places until it
               is as even as that, too
    label      where swaps don't get there: packs go to the ranks that have most of them already

and a layer that would win next to nothing stays as it is. Sources: EPLB's idea of redundant experts
(DeepSeek-V3, arXiv 2412.19437, section 3.4); longest processing time first (Graham, SIAM J. Appl.
Math. 17, 1969). EPLB packs without looking at what is there; here every move has to be paid.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from epidote_core.expert_placement import Placement, imbalance, placement_digest
from epidote_planner.experts import ExpertMove

LEAST_GAIN = 0.02  # of a layer's busiest rank: less is noise of the counts, and weights cost bytes
EXPERT_S = 0.02  # 10 MB (Qwen3-30B-A3B in bf16) read at 0.5 GB/s, until a move has been measured
MAX_SLOWDOWN = 0.1  # share of decode speed lost while experts are on their way

Layer = Sequence[int]  # [slot] → expert
Pack = list[int]  # experts of one rank


@dataclass(frozen=True, kw_only=True)
class BalancingPlacer:
    """An `ExpertPlacer` for workers whose experts lie as in `present`.

    `expert_s`: seconds that one slot's weights take to be there, bytes over bytes a second.
    """

    present: Placement
    ranks: int
    expert_s: float = EXPERT_S

    def propose(self, tokens_per_expert: tuple[tuple[float, ...], ...]) -> ExpertMove | None:
        """A placement with less imbalance; None where no layer would win by being moved."""
        shapes = [len(counts) for counts in tokens_per_expert]
        if shapes != [len(set(slots)) for slots in self.present]:
            return None  # counts of another model, or of a fleet in the middle of a change
        placed = tuple(
            better_layer(counts, slots, self.ranks)
            for counts, slots in zip(tokens_per_expert, self.present, strict=True)
        )
        if placed == self.present:
            return None
        moved = num_moved(self.present, placed)
        return ExpertMove(
            name=placement_digest(placed),
            placement=placed,
            num_moved=moved,
            imbalance=imbalance(tokens_per_expert, placed, self.ranks),
            migration_s=moved * self.expert_s,
            slowdown=MAX_SLOWDOWN,
        )


def better_layer(tokens: Sequence[float], present: Layer, ranks: int) -> tuple[int, ...]:
    """One layer's slots for these tokens by expert; `present` where that wins too little.

    >>> better_layer([8.0, 8.0, 1.0, 1.0], [0, 1, 2, 3], 2)
    (0, 2, 1, 3)
    """
    replicas = replicate(tokens, len(present), ranks)
    shares = [count / n for count, n in zip(tokens, replicas, strict=True)]
    packs = pack([(shares[e], e) for e, n in enumerate(replicas) for _ in range(n)], ranks)
    best = max(sum(shares[expert] for expert in packed) for packed in packs)
    if best >= _busiest(tokens, present, ranks) * (1.0 - LEAST_GAIN):
        return tuple(present)
    near = swapped(shares, with_replicas(present, replicas), ranks, best * (1.0 + LEAST_GAIN))
    far = label(packs, present)
    if near is None or _num_changed(present, far) <= _num_changed(present, near):
        return far
    return near


def replicate(tokens: Sequence[float], num_slots: int, ranks: int) -> list[int]:
    """Slots of every expert, at least one each.

    More replicas than ranks would have to share one: only where there is no other use for slots.

    >>> replicate([9.0, 2.0, 1.0], 5, 2)
    [2, 2, 1]
    """
    replicas = [1] * len(tokens)
    for _ in range(num_slots - len(tokens)):
        hottest = max(
            range(len(tokens)),
            key=lambda e: (replicas[e] < ranks, tokens[e] / replicas[e], -replicas[e], -e),
        )
        replicas[hottest] += 1
    return replicas


def pack(slots: Sequence[tuple[float, int]], ranks: int) -> list[Pack]:
    """Slots, as (tokens, expert), to ranks with room for equally many.

    Replicas of one expert go to different ranks where that can be had: on one they share nothing.

    >>> pack([(4.0, 0), (3.0, 1), (2.0, 2), (1.0, 3)], 2)
    [[0, 3], [1, 2]]
    """
    room = len(slots) // ranks
    packs: list[Pack] = [[] for _ in range(ranks)]
    loads = [0.0] * ranks
    for tokens, expert in sorted(slots, key=lambda slot: (-slot[0], slot[1])):
        free = [rank for rank in range(ranks) if len(packs[rank]) < room]
        rank = min(free, key=lambda rank: (expert in packs[rank], loads[rank], rank))
        packs[rank].append(expert)
        loads[rank] += tokens
    return packs


def with_replicas(present: Layer, replicas: Sequence[int]) -> Pack:
    """`present` with as few slots changed as give every expert its number of replicas.

    >>> with_replicas([0, 1, 2, 2], [2, 1, 1])
    [0, 1, 0, 2]
    """
    surplus = Counter(present)
    surplus.subtract(dict(enumerate(replicas)))
    missing = iter(sorted((-surplus).elements()))
    slots = list(present)
    for slot, expert in enumerate(slots):
        if surplus[expert] > 0:
            surplus[expert] -= 1
            slots[slot] = next(missing)
    return slots


def swapped(
    shares: Sequence[float], slots: Pack, ranks: int, enough: float
) -> tuple[int, ...] | None:
    """`slots` after swaps, once no rank has more than `enough` tokens; None: they don't get there.

    `shares` are tokens by expert and slot. Each swap makes the busier of its two ranks less busy.
    """
    each, slots = len(slots) // ranks, list(slots)
    of_rank = [range(rank * each, (rank + 1) * each) for rank in range(ranks)]
    for _ in range(len(slots)):
        loads = [sum(shares[slots[slot]] for slot in own) for own in of_rank]
        busy, idle = loads.index(max(loads)), loads.index(min(loads))
        if loads[busy] <= enough:
            return tuple(slots)
        middle = (loads[busy] - loads[idle]) / 2
        gap, give, take = min(
            (abs(middle - shares[slots[give]] + shares[slots[take]]), give, take)
            for give in of_rank[busy]
            for take in of_rank[idle]
        )
        if gap >= middle:
            return None
        slots[give], slots[take] = slots[take], slots[give]
    return None


def label(packs: Sequence[Pack], present: Layer) -> tuple[int, ...]:
    """The packs in an order, and their experts in slots, in which most slots stay as they are.

    Pairs of pack and rank are taken greedily, those with most experts in common first.

    >>> label([[2, 3], [1, 0]], [0, 1, 2, 4])
    (0, 1, 2, 3)
    """
    each = len(packs[0])
    there = [Counter(present[rank * each : (rank + 1) * each]) for rank in range(len(packs))]
    pairs = sorted(
        (-(Counter(packed) & there[rank]).total(), rank, number)
        for number, packed in enumerate(packs)
        for rank in range(len(packs))
    )
    pack_of: dict[int, int] = {}
    for _, rank, number in pairs:
        if rank not in pack_of and number not in pack_of.values():
            pack_of[rank] = number
    placed: list[int] = []
    for rank in range(len(packs)):
        placed += _seated(packs[pack_of[rank]], present[rank * each : (rank + 1) * each])
    return tuple(placed)


def num_moved(before: Placement, after: Placement) -> int:
    """Slots whose weights have to be brought: those with another expert than before.

    >>> num_moved(((0, 1, 2),), ((0, 2, 1),))
    2
    """
    return sum(_num_changed(was, now) for was, now in zip(before, after, strict=True))


def _num_changed(before: Layer, after: Layer) -> int:
    return sum(was != now for was, now in zip(before, after, strict=True))


def _seated(packed: Pack, present: Layer) -> list[int]:
    """One rank's experts: those that were there keep their slots, the others take what is free."""
    coming = Counter(packed)
    staying: list[int | None] = []
    for expert in present:
        stays = coming[expert] > 0
        coming[expert] -= stays
        staying.append(expert if stays else None)
    others = iter(sorted((+coming).elements()))
    return [next(others) if expert is None else expert for expert in staying]


def _busiest(tokens: Sequence[float], slots: Layer, ranks: int) -> float:
    replicas, each = Counter(slots), len(slots) // ranks
    shares = [tokens[expert] / replicas[expert] for expert in slots]
    return max(sum(shares[rank * each : (rank + 1) * each]) for rank in range(ranks))
