"""This file is about one category's entries, for counting them and drawing some at random."""

from random import Random

from epidote_gateway.cache.entry import Entry


class Shelf:
    """A set with random sampling: the last one takes the place of a removed one."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._place: dict[int, int] = {}  # by entry number
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        self._place[entry.number] = len(self._entries)
        self._entries.append(entry)
        self.num_bytes += entry.num_bytes

    def remove(self, entry: Entry) -> None:
        place = self._place.pop(entry.number)
        last = self._entries.pop()
        if last is not entry:
            self._entries[place] = last
            self._place[last.number] = place
        self.num_bytes -= entry.num_bytes

    def sample(self, rng: Random, size: int) -> list[Entry]:
        """`size` of them, different ones; all if they are not more."""
        if len(self._entries) <= size:
            return list(self._entries)
        return rng.sample(self._entries, size)
