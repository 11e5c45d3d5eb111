"""This file is about a second, contiguous copy of the KV of the sequences that decode on a CPU.

Attention on a CPU wants contiguous keys and values; gathering the blocks of a batch for every layer
of every step copies everybody's whole context each time. Here a step adds one token, and only a
sequence that has just come is copied from the paged pool. The pool stays complete: peers, the
prefix cache and preemption know nothing of the mirror.
"""

import numpy as np
import torch
from torch import Tensor

from epidote_engine.rows import BatchRows, Ints

_MAX_BYTES = 512 << 20  # beyond it the general pass gathers blocks, one layer at a time
_LENGTHS = 64  # room for tokens comes in multiples of this


class KvMirror:
    """Sequences sit in slots 0, 1, …; the batch of a step is exactly the first slots.

    keys_values  [layers, 2, slots, K, tokens, D]
    visible      [slots, tokens]  0 where a slot has a token, else -inf
    """

    keys_values: Tensor
    visible: Tensor
    _key: tuple[int, int, bytes] | None  # of the batch that sits
    _order: tuple[Ints, Ints] | None

    def __init__(self, kv: Tensor, rows: BatchRows) -> None:
        """`kv` [layers, 2, NB, BS, K, D] is the paged pool."""
        self._pool = kv.view(kv.shape[0], 2, -1, *kv.shape[4:])  # [layers, 2, cells, K, D]
        self._block_size = kv.shape[3]
        self._rows = rows
        self._resize(0, 0)

    def make_room(self, num_slots: int, num_tokens: int) -> bool:
        """See to it that so many sequences of at most so many tokens fit; False: they can't."""
        slots, tokens = self.visible.shape
        if num_slots <= slots and num_tokens <= tokens:
            return True
        roomy = max(slots, 1 << (num_slots - 1).bit_length()), max(tokens, num_tokens * 3 // 2)
        for wanted_slots, wanted_tokens in (roomy, (num_slots, num_tokens)):
            wanted_tokens += -wanted_tokens % _LENGTHS
            if self._num_bytes(wanted_slots, wanted_tokens) <= _MAX_BYTES:
                self._resize(wanted_slots, wanted_tokens)
                return True
        return False

    def seat(self, rows: Ints, num_slots: int) -> tuple[Ints, Ints] | None:
        """Give each of `rows` one of the first slots; who has such a slot keeps it.

        Returns (index into `rows` of each slot's sequence, its inverse); None: they sit as they
        come. Slots from len(rows) to `num_slots` - 1 are made to hold one token, zeros.
        """
        key = (self._rows.version, num_slots, rows.tobytes())
        if key != self._key:
            self._key = key
            self._order = self._seat(self._rows.stay[rows])
            self._pad(len(rows), num_slots)
        return self._order

    def follow(self, rows: Ints, num_filed: Ints) -> None:
        """Copy what is missing of the first `num_filed` tokens; both in the order of the slots."""
        filled = self._num_filled[: len(rows)]
        if filled.tobytes() != num_filed.tobytes():
            behind = np.flatnonzero(filled != num_filed)
            self._copy(behind, rows[behind], num_filed[behind])
            filled[:] = num_filed
        filled += 1  # the step under way writes one more

    def cells(self, index: Ints) -> Ints:
        """Where a layer's new keys and values go, seen as [2·slots·K·tokens, D]: [N, 2·K].

        `index` [N] is the place of each slot's new token.
        """
        cells: Ints = self._first_cells[: len(index)] + index[:, None]
        return cells

    def bias(self, index: Ints, num_tokens: int) -> Tensor:
        """What attention adds to the scores of the first `num_tokens`, [N, 1, 1, num_tokens].

        `index` [N] is the place of each slot's new token, which is visible from now on.
        """
        new = torch.from_numpy(self._first_tokens[: len(index)] + index)
        self.visible.view(-1).index_fill_(0, new, 0.0)
        return self.visible[: len(index), None, None, :num_tokens]

    def _seat(self, stays: Ints) -> tuple[Ints, Ints] | None:
        count = len(stays)
        newcomers = {stay: index for index, stay in enumerate(stays.tolist())}
        kept = [newcomers.pop(stay, -1) for stay in self._stays[:count].tolist()]
        waiting = iter(newcomers.values())
        order = np.array([index if index >= 0 else next(waiting) for index in kept], np.int64)
        for slot, index in enumerate(kept):
            if index < 0:
                self._clear(slot)
        self._stays[:count] = stays[order]
        self._stays[count:] = -1
        if (order == np.arange(count)).all():
            return None
        return order, np.argsort(order)

    def _pad(self, first: int, end: int) -> None:
        for slot in range(first, end):
            self._clear(slot)
            self._num_filled[slot] = 1  # written like everybody's

    def _clear(self, slot: int) -> None:
        """Zeros, since what is masked is still multiplied by 0, and 0 · NaN is NaN."""
        self.keys_values[:, :, slot, :, : self._num_filled[slot]] = 0.0
        self.visible[slot] = -torch.inf
        self._num_filled[slot] = 0

    def _copy(self, slots: Ints, rows: Ints, ends: Ints) -> None:
        """Tokens [filled, end) of each of `slots` from the pool."""
        starts = self._num_filled[slots]
        counts = ends - starts
        run = np.repeat(np.arange(len(slots)), counts)
        token = np.arange(counts.sum()) - (np.cumsum(counts) - counts)[run] + starts[run]
        block = self._rows.table[rows[run], token // self._block_size].astype(np.int64)
        source = torch.from_numpy(block * self._block_size + token % self._block_size)
        slot, place = torch.from_numpy(slots[run]), torch.from_numpy(token)
        found = self._pool.index_select(2, source)  # [layers, 2, N, K, D]
        self.keys_values[:, :, slot, :, place] = found.permute(2, 0, 1, 3, 4)
        self.visible[slot, place] = 0.0

    def _resize(self, slots: int, tokens: int) -> None:
        """Forgets everything: it is copied anew from the pool."""
        layers, _, _, kv_heads, dim = self._pool.shape
        dtype = self._pool.dtype
        self.keys_values = torch.zeros(layers, 2, slots, kv_heads, tokens, dim, dtype=dtype)
        self.visible = torch.full((slots, tokens), -torch.inf, dtype=dtype)
        heads = np.arange(2 * slots * kv_heads).reshape(2, slots, kv_heads) * tokens
        self._first_cells: Ints = np.ascontiguousarray(
            heads.transpose(1, 0, 2).reshape(slots, 2 * kv_heads)
        )
        self._first_tokens = np.arange(slots) * tokens
        self._stays = np.full(slots, -1, np.int64)
        self._num_filled = np.zeros(slots, np.int64)
        self._key = None
        self._order = None

    def _num_bytes(self, slots: int, tokens: int) -> int:
        layers, _, _, kv_heads, dim = self._pool.shape
        return slots * tokens * layers * 2 * kv_heads * dim * self._pool.dtype.itemsize
