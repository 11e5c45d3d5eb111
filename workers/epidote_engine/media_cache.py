"""This file is about which media embeddings lie where in the media pool, and who needs them.

An entry is being filled (encoding, or copied from a peer) or ready. Ready entries that nobody
holds are evicted, least recently used first, when rows are needed. Owners may hold a key before
its entry exists, so that a medium that arrives for a waiting request can't be evicted again.
"""

from bisect import insort
from collections import OrderedDict
from dataclasses import dataclass

from epidote_engine.events import MediaRows


@dataclass(slots=True)
class _Entry:
    rows: tuple[range, ...]
    num_tokens: int
    ready: bool = False


class MediaCache:
    """Bookkeeping of `num_rows` embedding rows; knows nothing of tensors."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows
        self._free = [range(num_rows)] if num_rows else []  # sorted, never adjacent
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        self._holders: dict[str, set[str]] = {}
        self._added: set[str] = set()
        self._removed: set[str] = set()

    @property
    def num_free(self) -> int:
        """Rows that are free or could be freed by eviction."""
        return sum(map(len, self._free)) + sum(
            entry.num_tokens for key, entry in self._entries.items() if self._is_evictable(key)
        )

    @property
    def num_filling(self) -> int:
        return sum(not entry.ready for entry in self._entries.values())

    def is_ready(self, key: str) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.ready

    def is_known(self, key: str) -> bool:
        """Ready or being filled."""
        return key in self._entries

    def rows(self, key: str) -> MediaRows:
        """Where the entry lies; it counts as used now."""
        entry = self._entries[key]
        self._entries.move_to_end(key)
        return MediaRows(key=key, rows=entry.rows, ready=entry.ready)

    def reserve(self, key: str, num_tokens: int) -> MediaRows | None:
        """Rows for an entry that is not known yet. None: no room now, nothing was changed."""
        assert key not in self._entries, "ask is_known first"
        if num_tokens > self.num_free:
            return None
        for victim in [key for key in self._entries if self._is_evictable(key)]:
            if sum(map(len, self._free)) >= num_tokens:
                break
            self._drop(victim)
        self._entries[key] = _Entry(self._take(num_tokens), num_tokens)
        return self.rows(key)

    def commit(self, key: str) -> None:
        """The rows are filled."""
        self._entries[key].ready = True
        self._note(key, self._added, self._removed)

    def cancel(self, key: str) -> None:
        """The entry could not be filled; its rows are free."""
        assert not self._entries[key].ready, "only an entry being filled can be cancelled"
        self._drop(key)

    def hold(self, key: str, owner: str) -> None:
        """Keep `key` from being evicted, now or from its arrival on. Holding twice is once."""
        self._holders.setdefault(key, set()).add(owner)
        if key in self._entries:
            self._entries.move_to_end(key)

    def let_go(self, key: str, owner: str) -> None:
        """Undo `hold`; without one nothing happens."""
        owners = self._holders.get(key)
        if owners is not None:
            owners.discard(owner)
            if not owners:
                del self._holders[key]

    def holds(self) -> dict[str, frozenset[str]]:
        """Owners by key, for checks."""
        return {key: frozenset(owners) for key, owners in self._holders.items()}

    def take_changes(self) -> tuple[frozenset[str], frozenset[str]]:
        """Ready keys (added, removed) since the last call."""
        changes = frozenset(self._added), frozenset(self._removed)
        self._added, self._removed = set(), set()
        return changes

    def errors(self) -> list[str]:
        """Rows that are lost or used twice, counted from scratch."""
        used = [row for entry in self._entries.values() for part in entry.rows for row in part]
        free = [row for part in self._free for row in part]
        found = []
        if sorted(used + free) != list(range(self.num_rows)):
            found.append("media rows: used and free rows are not each row once")
        for key, entry in self._entries.items():
            if sum(map(len, entry.rows)) != entry.num_tokens:
                found.append(f"medium {key[:12]}: {entry.num_tokens} tokens, other number of rows")
        if any(
            left.stop >= right.start
            for left, right in zip(self._free, self._free[1:], strict=False)
        ):
            found.append("media rows: free ranges unsorted or adjacent")
        if any(not owners for owners in self._holders.values()):
            found.append("a medium is held by nobody")
        return found

    def _is_evictable(self, key: str) -> bool:
        return self._entries[key].ready and key not in self._holders

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key)
        for part in entry.rows:
            self._give_back(part)
        if entry.ready:
            self._note(key, self._removed, self._added)

    def _take(self, count: int) -> tuple[range, ...]:
        """The smallest free range that fits, else the largest ones until it fits."""
        fitting = [part for part in self._free if len(part) >= count]
        if fitting and count:
            chosen = [min(fitting, key=len)]
        else:
            chosen, missing = [], count
            for part in sorted(self._free, key=len, reverse=True):
                if missing <= 0:
                    break
                chosen.append(part)
                missing -= len(part)
        taken = []
        for part in chosen:
            self._free.remove(part)
            used = part[:count]
            count -= len(used)
            taken.append(used)
            if len(used) < len(part):
                insort(self._free, part[len(used) :], key=lambda rows: rows.start)
        return tuple(taken)

    def _give_back(self, part: range) -> None:
        if not part:
            return
        start, stop = part.start, part.stop
        for neighbour in [rows for rows in self._free if rows.stop == start or rows.start == stop]:
            self._free.remove(neighbour)
            start, stop = min(start, neighbour.start), max(stop, neighbour.stop)
        insort(self._free, range(start, stop), key=lambda rows: rows.start)

    @staticmethod
    def _note(key: str, into: set[str], opposite: set[str]) -> None:
        if key in opposite:
            opposite.remove(key)
        else:
            into.add(key)
