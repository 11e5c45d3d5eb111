"""This file is about attention of prompts that begin in this very step, all of them at once, on a
CPU: there a call per prompt costs more than its arithmetic."""

from typing import Self

import numpy as np
import torch
from torch import Tensor

_MOST_PADDING = 0.5  # of the real rows; beyond it one call per prompt is as fast
_LONGEST = 512  # where the call is no longer what costs


class FreshPrompts:
    """Prompts side by side, the shorter ones padded at the end, where causality hides it."""

    def __init__(self, lengths: list[int], slots: Tensor) -> None:
        """`slots` [sum of lengths]: where each token's keys and values lie in the KV pool."""
        counts, longest = np.asarray(lengths), max(lengths)
        places, starts = np.arange(longest), np.cumsum(counts) - counts
        # a row of padding repeats its prompt's last one
        padded = starts[:, None] + np.minimum(places, counts[:, None] - 1)
        self._shape = (len(counts), longest)
        self._padded = torch.from_numpy(padded.ravel())
        self._slots = slots.index_select(0, self._padded)
        self._real = torch.from_numpy(np.flatnonzero(places < counts[:, None]))

    @classmethod
    def of(cls, lengths: list[int], slots: Tensor) -> Self | None:
        """None: they are better attended one after the other."""
        longest, total = max(lengths), sum(lengths)
        wasted = longest * len(lengths) - total
        if len(lengths) == 1 or longest > _LONGEST or wasted > _MOST_PADDING * total:
            return None
        return cls(lengths, slots)

    def attend(self, q: Tensor, layer: Tensor, scale: float) -> Tensor:
        """Causal attention within each prompt: q [T, H, D] → [T, H, D].

        `layer` [2, NB, BS, K, D] has the prompts' keys and values already.
        """
        keys, values = (
            self._lined_up(cache.flatten(0, 1).index_select(0, self._slots)) for cache in layer
        )
        mixed = torch.nn.functional.scaled_dot_product_attention(
            self._lined_up(q.index_select(0, self._padded)), keys, values,
            is_causal=True, scale=scale, enable_gqa=keys.shape[1] != q.shape[1],
        )  # fmt: skip
        return mixed.transpose(1, 2).flatten(0, 1).index_select(0, self._real)

    def _lined_up(self, rows: Tensor) -> Tensor:
        return rows.view(*self._shape, *rows.shape[1:]).transpose(1, 2)
