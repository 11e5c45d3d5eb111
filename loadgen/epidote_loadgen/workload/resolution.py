"""This file is about how large pictures are: a mix of sizes, or so many visual tokens."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from epidote_loadgen.pictures import MAX_ASPECT, sample_size

SizePx = tuple[int, int]


@dataclass(frozen=True)
class ResolutionMix:
    """Width and height in pixels, by weight; without any, small ones of all shapes."""

    weights: Mapping[SizePx, float]

    def sample(self, rng: Random) -> SizePx:
        """Mutates `rng` only."""
        if not self.weights:
            return sample_size(rng)
        cumulative = list(itertools.accumulate(self.weights.values()))
        return rng.choices(list(self.weights), cum_weights=cumulative)[0]


@lru_cache(maxsize=4096)
def size_of_tokens(num_tokens: int, *, side_px: int) -> tuple[SizePx, int]:
    """A picture of about `num_tokens` visual tokens, and how many it has: never more.

    A token covers `side_px` x `side_px` pixels (28 in Qwen2-VL, 32 in Qwen3-VL) and a grid of
    a x b of them has a·b, so a number without fitting factors is missed by a few tokens.

    >>> size_of_tokens(12, side_px=28)
    ((112, 84), 12)
    """
    best = (1, 1)
    for rows in range(math.isqrt(num_tokens), 0, -1):
        columns = min(num_tokens // rows, math.floor(rows * MAX_ASPECT))
        if rows * columns > best[0] * best[1]:
            best = (columns, rows)
        if best[0] * best[1] == num_tokens or rows * math.floor(rows * MAX_ASPECT) < (
            best[0] * best[1]
        ):
            break
    columns, rows = best
    return (columns * side_px, rows * side_px), columns * rows
