"""This file is about which device holds which expert of a model cut by experts; no torch.

A layer with E experts has P = E + R slots, R of them redundant: an expert may stand in several, and
its replicas share its tokens. Slot s lies on rank s // (P // ranks). A placement is what EPLB calls
physical_to_logical_map. Source: DeepSeek-V3 (arXiv 2412.19437), section 3.4.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

from epidote_core.errors import InvalidRequest

Placement = tuple[tuple[int, ...], ...]  # [layer with experts][slot] → expert


def default_placement(num_layers: int, num_experts: int, num_slots: int) -> Placement:
    """Where a model starts: experts in order, the redundant slots with the first ones again.

    >>> default_placement(1, 3, 4)
    ((0, 1, 2, 0),)
    """
    return (tuple(slot % num_experts for slot in range(num_slots)),) * num_layers


def check_placement(
    placement: Sequence[Sequence[int]], *, num_layers: int, num_experts: int, num_slots: int
) -> None:
    """Refuse a placement that a model of these sizes can't take; `num_layers` with experts.

    Raises:
        InvalidRequest: naming the first fault and its place, field `placement[layer][slot]`.
    """
    if len(placement) != num_layers:
        raise _fault("placement", f"must have {num_layers} layers", len(placement))
    for number, slots in enumerate(placement):
        at = f"placement[{number}]"
        if len(slots) != num_slots:
            raise _fault(at, f"must have {num_slots} slots", len(slots))
        for slot, expert in enumerate(slots):
            if type(expert) is not int or not 0 <= expert < num_experts:
                raise _fault(f"{at}[{slot}]", f"must be from 0 to {num_experts - 1}", expert)
        if missing := sorted(set(range(num_experts)) - set(slots)):
            raise InvalidRequest(f"{at}: expert {missing[0]} has no slot, all need one", at)


def imbalance(
    tokens: Sequence[Sequence[float]], placement: Sequence[Sequence[int]], ranks: int
) -> float:
    """The busiest rank's tokens over the mean, >= 1; an expert's slots share its tokens evenly.

    A step waits for the busiest rank of each layer, so those are summed over the layers first.
    `tokens` is [layer][expert]; the number of slots must be divisible by `ranks`. 1.0 without
    tokens.

    >>> imbalance([[6.0, 2.0]], [[0, 1]], 2), imbalance([[6.0, 2.0]], [[0, 1, 0, 1]], 2)
    (1.5, 1.0)
    """
    busiest = mean = 0.0
    for counts, slots in zip(tokens, placement, strict=True):
        replicas, each = Counter(slots), len(slots) // ranks
        shares = [counts[expert] / replicas[expert] for expert in slots]
        loads = [sum(shares[rank * each : (rank + 1) * each]) for rank in range(ranks)]
        busiest += max(loads)
        mean += sum(loads) / ranks
    return max(1.0, busiest / mean) if mean > 0 else 1.0


def placement_digest(placement: Sequence[Sequence[int]]) -> str:
    """A short name for a placement: equal ones have equal names, whatever they are made of.

    >>> placement_digest([[0, 1]]) == placement_digest(((0, 1),)) != placement_digest([[0], [1]])
    True
    """
    text = ";".join(",".join(map(str, slots)) for slots in placement)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _fault(field: str, wanted: str, found: object) -> InvalidRequest:
    return InvalidRequest(f"{field}: {wanted}, got {found!r}", field)
