"""This file is about the cheapest encode/prefill/decode split that keeps the SLO.

Decode is independent of the other two. For encode and prefill the prediction is monotone in
both, so the cheapest pair lies on a staircase; walking it finds the optimum exactly, in steps
linear in the staircase's length, which is short even for thousands of workers.
"""

from collections.abc import Callable
from dataclasses import dataclass

from epidote_core.roles import Role
from epidote_planner.capacity import MANY, GroupModel
from epidote_planner.policy import AT_LEAST_ONE, Bounds


@dataclass(frozen=True, kw_only=True)
class Split:
    """Workers of each role in one group."""

    encode: int
    prefill: int
    decode: int

    @property
    def total(self) -> int:
        return self.encode + self.prefill + self.decode

    def of(self, role: Role) -> int:
        match role:
            case Role.ENCODE:
                return self.encode
            case Role.PREFILL:
                return self.prefill
            case Role.DECODE:
                return self.decode
            case Role.ALL:
                return 0


@dataclass(frozen=True, kw_only=True)
class SplitBounds:
    """Least and most workers of each role."""

    encode: Bounds = AT_LEAST_ONE
    prefill: Bounds = AT_LEAST_ONE
    decode: Bounds = AT_LEAST_ONE


def size(model: GroupModel, bounds: SplitBounds) -> Split:
    """The cheapest split that meets TTFT and TPOT, inside the bounds.

    Requests that are too slow alone on idle workers are left out of TTFT: no split helps them (see
    `reach.py`). Where TTFT stays out of reach of the bounds, encode and prefill get the fewest
    workers whose queues end; where TPOT does, decode gets the fewest that carry the tokens at the
    largest batch, or as many as the bounds permit.
    """
    encode, prefill = _cheapest_pair(model, bounds)
    return Split(encode=encode, prefill=prefill, decode=least_decoders(model, bounds.decode))


def least_decoders(model: GroupModel, bounds: Bounds) -> int:
    """Fewest decode workers that keep TPOT and KV memory."""
    return _least(model.decode_fits, max(bounds.least, int(model.decode_load)), bounds)


def _cheapest_pair(model: GroupModel, bounds: SplitBounds) -> tuple[int, int]:
    encode_least = bounds.encode.least
    if model.encode_load > 0.0:
        encode_least = max(encode_least, int(model.encode_load) + 1)
    encode_least = min(encode_least, bounds.encode.most)
    prefill_least = bounds.prefill.least
    if model.prefill_load > 0.0:
        prefill_least = max(prefill_least, int(model.prefill_load) + 1)
    prefill_least = min(prefill_least, bounds.prefill.most)
    if not model.classes:
        return encode_least, prefill_least

    if model.encode_load > 0.0:  # fewest encoders that any number of prefill workers can save
        encode_least = _least(lambda n: model.ttft_fits(n, MANY), encode_least, bounds.encode)
    prefill = _least(lambda n: model.ttft_fits(encode_least, n), prefill_least, bounds.prefill)
    if not model.ttft_fits(encode_least, prefill):  # out of reach: stable queues, no more
        return encode_least, prefill_least
    floor = _least(lambda n: model.ttft_fits(MANY, n), prefill_least, bounds.prefill)

    encode = encode_least
    best = (encode + prefill, model.ttft_miss_ratio(encode, prefill), encode, prefill)
    while encode + 1 + floor <= best[0] and encode < bounds.encode.most and model.encode_load > 0.0:
        encode += 1
        while prefill > prefill_least and model.ttft_fits(encode, prefill - 1):
            prefill -= 1
        found = (encode + prefill, model.ttft_miss_ratio(encode, prefill), encode, prefill)
        best = min(best, found)
    return best[2], best[3]


def _least(fits: Callable[[int], bool], start: int, bounds: Bounds) -> int:
    """Smallest n >= `start` with `fits(n)`, or `start` if none inside the bounds fits.

    `fits` is monotone: once true it stays true.
    """
    low = min(max(start, bounds.least), bounds.most)
    if fits(low):
        return low
    step, high = 1, low
    while not fits(high):
        low, high = high, high + step
        step *= 2
        if low >= bounds.most or step > MANY:
            return min(max(start, bounds.least), bounds.most)
        high = min(high, bounds.most)
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle
    return high
