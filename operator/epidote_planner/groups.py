"""This file is about sharing spare workers, and about taking one when there are none to spare.

Source: ElasticMM (arXiv 2507.10069, NeurIPS 2025). Spare workers go where the burst tolerance,
workers over workers needed on average, is least; greedy is optimal for this max-min. The
authors' code divides by a need that ignores the allocation, so that one group gets everything;
here the need stays in the denominator and the allocation in the numerator.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heapify, heapreplace

from epidote_planner.lane import Lane

LEAST_LOAD = 0.05  # an idle lane is no bottomless claim on spare workers


def burst_tolerance(workers: int, load: float) -> float:
    """How many times its average load a lane could carry.

    >>> burst_tolerance(6, 2.0)
    3.0
    """
    return workers / max(load, LEAST_LOAD)


def share_spare(
    allocation: Mapping[Lane, int],
    loads: Mapping[Lane, float],
    most: Mapping[Lane, int],
    spare: int,
) -> dict[Lane, int]:
    """Give `spare` workers one by one to the lane with the least tolerance that may grow."""
    shared = dict(allocation)
    heap = [
        (burst_tolerance(count, loads.get(lane, 0.0)), lane)
        for lane, count in shared.items()
        if count < most.get(lane, count)
    ]
    heapify(heap)
    while spare > 0 and heap:
        _, lane = heap[0]
        shared[lane] += 1
        spare -= 1
        grown = burst_tolerance(shared[lane], loads.get(lane, 0.0))
        if shared[lane] < most[lane]:
            heapreplace(heap, (grown, lane))
        else:
            heap[0] = heap[-1]
            heap.pop()
            heapify(heap)
    return shared


@dataclass(frozen=True, kw_only=True)
class LanePressure:
    """What ElasticMM's gain and cost need to know of a lane."""

    workers: int
    waiting_work_s: float = 0.0  # worker-seconds in the queue
    waiting_tokens: float = 0.0  # input tokens (encode, prefill) or output tokens (decode)
    running_work_s: float = 0.0
    running_tokens: float = 0.0
    num_running: int = 0


def receive_gain(lane: LanePressure) -> float:
    """Seconds per token that the queue would save with one more worker."""
    if lane.waiting_tokens <= 0.0:
        return 0.0
    now = lane.waiting_work_s / max(1, lane.workers)
    then = lane.waiting_work_s / (lane.workers + 1)
    return (now - then) * max(1, lane.workers) / lane.waiting_tokens


def donate_cost(lane: LanePressure, *, move_s: float, penalty: float) -> float:
    """Seconds per token that the running work would lose: the move, and a slower rest.

    `move_s` is the migration of one worker's requests; `penalty` weighs the slow-down.
    """
    if lane.workers <= 1:
        return float("inf")
    if lane.num_running <= 0 or lane.running_tokens <= 0.0:
        return 0.0
    slower = lane.running_work_s / (lane.workers - 1) - lane.running_work_s / lane.workers
    return (move_s * lane.num_running / lane.workers + penalty * slower) / lane.running_tokens


def preemption(
    pressures: Mapping[Lane, LanePressure],
    donors: Mapping[Lane, float],
    *,
    penalty: float,
    horizon: float,
) -> tuple[Lane, Lane] | None:
    """The best (donor, receiver) if taking a worker wins more than it costs, else None.

    `donors` maps the lanes that may give to their move time in seconds; `horizon` is the number
    of decision intervals over which the gain is expected to last.
    """
    best: tuple[float, Lane, Lane] | None = None
    for receiver, waiting in pressures.items():
        gain = horizon * receive_gain(waiting)
        if gain <= 0.0:
            continue
        for donor, move_s in donors.items():
            if donor == receiver:
                continue
            net = gain - donate_cost(pressures[donor], move_s=move_s, penalty=penalty)
            if net > 0.0 and (best is None or (-net, donor, receiver) < best):
                best = (-net, donor, receiver)
    return (best[1], best[2]) if best else None
