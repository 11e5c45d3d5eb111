"""This file is about every entry of this process: found by fingerprint, by meaning, or by id.

One index for each (context, category): nothing of another tenant, model, conversation or picture
is ever among the neighbours. All of it is for one event loop.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import count

from epidote_gateway.cache.entry import Entry
from epidote_gateway.cache.neighbours import Neighbours
from epidote_gateway.cache.protocols import Vector
from epidote_gateway.cache.shelf import Shelf

Place = tuple[bytes, str]  # context, category


class Catalog:
    """Entries and their vectors. `make_neighbours()` makes the index of a partition."""

    def __init__(self, make_neighbours: Callable[[], Neighbours]) -> None:
        self._make_neighbours = make_neighbours
        self._numbers = count(1)
        self._by_id: dict[str, Entry] = {}
        self._by_number: dict[int, Entry] = {}
        self._by_exact: dict[bytes, Entry] = {}
        self._partitions: dict[Place, Neighbours] = {}
        self.shelves: dict[str, Shelf] = {}  # by category
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._by_id.values())

    def get(self, entry_id: str) -> Entry | None:
        return self._by_id.get(entry_id)

    def exact(self, fingerprint: bytes) -> Entry | None:
        return self._by_exact.get(fingerprint)

    def near(
        self, context: bytes, category: str, vector: Vector, limit: int
    ) -> list[tuple[Entry, float]]:
        """(entry, cosine) of up to `limit` neighbours, nearest first."""
        partition = self._partitions.get((context, category))
        if partition is None:
            return []
        found = partition.search(vector, limit)
        return [(self._by_number[key], cosine) for key, cosine in found if key in self._by_number]

    def add(self, entry: Entry, vector: Vector | None) -> Entry | None:
        """Take `entry` in; returns the one of the same fingerprint that it replaced, if any."""
        assert entry.entry_id not in self._by_id, "an entry twice"
        replaced = self._by_exact.get(entry.exact)
        if replaced is not None:
            self.remove(replaced)
        entry.number = next(self._numbers)
        self._by_id[entry.entry_id] = entry
        self._by_number[entry.number] = entry
        self._by_exact[entry.exact] = entry
        self.num_bytes += entry.num_bytes
        self.shelves.setdefault(entry.category, Shelf()).add(entry)
        if vector is not None:
            self.attach(entry, vector)
        return replaced

    def attach(self, entry: Entry, vector: Vector) -> None:
        """Let an entry that has none be found by its vector."""
        place = (entry.context, entry.category)
        partition = self._partitions.get(place)
        if partition is None:
            partition = self._partitions[place] = self._make_neighbours()
        partition.add(entry.number, vector)

    def _detach(self, entry: Entry) -> None:
        place = (entry.context, entry.category)
        partition = self._partitions.get(place)
        if partition is not None:
            partition.remove(entry.number)
            if not len(partition):
                del self._partitions[place]

    def vector(self, entry: Entry) -> Vector | None:
        """By which `entry` is found; None if only by its fingerprint."""
        partition = self._partitions.get((entry.context, entry.category))
        return None if partition is None else partition.vector(entry.number)

    def move(self, entry: Entry, category: str) -> None:
        """Put `entry` into another category, vector and all."""
        vector = self.vector(entry)
        self._detach(entry)
        self.shelves[entry.category].remove(entry)
        entry.category = category
        self.shelves.setdefault(category, Shelf()).add(entry)
        if vector is not None:
            self.attach(entry, vector)

    def forget_vectors(self, make_neighbours: Callable[[], Neighbours]) -> None:
        """No entry is found by meaning until its new vector is attached."""
        self._make_neighbours = make_neighbours
        self._partitions.clear()

    def nearest(self, vector: Vector, limit: int) -> Iterator[list[tuple[Entry, float]]]:
        """Neighbours of every partition in turn, for an administrator's question."""
        for context, category in list(self._partitions):
            yield self.near(context, category, vector, limit)

    def remove(self, entry: Entry) -> bool:
        """False: it was not there (any more)."""
        if self._by_id.get(entry.entry_id) is not entry:
            return False
        del self._by_id[entry.entry_id]
        del self._by_number[entry.number]
        if self._by_exact.get(entry.exact) is entry:
            del self._by_exact[entry.exact]
        self.num_bytes -= entry.num_bytes
        self.shelves[entry.category].remove(entry)
        self._detach(entry)
        return True

    def wanting_building(self) -> Iterable[Neighbours]:
        """Partitions that a graph would make faster."""
        return [p for p in self._partitions.values() if p.wants_building]

    @property
    def num_partitions(self) -> int:
        return len(self._partitions)

    @property
    def index_bytes(self) -> int:
        """Of vectors and graphs in memory."""
        return sum(partition.num_bytes for partition in self._partitions.values())
