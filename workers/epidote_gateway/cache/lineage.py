"""This file is about which conversations have the same past.

MeanCache (arXiv 2403.02694) lets a follow-up question hit only where the question before was
answered by the same entry; its code also lets a stand-alone entry answer a follow-up, which gives
"and in France?" the answer of another conversation. Here the past is part of an entry's context,
always: either it is equal, or it was answered by the same entries.
"""

from collections import OrderedDict

CAPACITY = 65_536  # conversations whose first wording differs from their entry's; 150 bytes each


class Lineages:
    """Digests of pasts that count as the past of an entry's own conversation."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._canonical: OrderedDict[bytes, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._canonical)

    def of(self, past: bytes) -> bytes:
        """The past to compare in the place of `past`."""
        found = self._canonical.get(past)
        if found is None:
            return past
        self._canonical.move_to_end(past)
        return found

    def join(self, after: bytes, canonical: bytes) -> None:
        """A conversation now at `after` was given the answer of one now at `canonical`."""
        if after == canonical:
            return
        self._canonical[after] = canonical
        self._canonical.move_to_end(after)
        if len(self._canonical) > self._capacity:
            self._canonical.popitem(last=False)
