"""This file is about sums over a fleet that stay when a worker ends.

A worker counts from its own start, so a sum over those that are there falls by all that one had
counted as it leaves. Prometheus takes a fall for a reset to zero, and `rate()` then shows the whole
history of the others as if it had just happened.
"""

from collections.abc import Mapping

NUM_ENDED = 1000  # workers that are gone and may come back into view
Key = tuple[str, ...]  # a metric's name, or none, and the values of its labels


class LastingTotals:
    """What all workers ever seen have counted, by key; no total ever falls.

    A worker whose figures fell, any of them, has started anew under its old name: all of them are
    added from zero. One that is gone keeps its share, and goes on from there if it comes back.

    Lost is what a worker counted after the last look at it, and a start between two looks by which
    no figure fell. One that comes back after `num_ended` others have gone is counted twice.
    """

    def __init__(self, num_ended: int = NUM_ENDED) -> None:
        self._num_ended = num_ended
        self._last: dict[str, Mapping[Key, float]] = {}  # whom we saw longest ago first
        self._totals: dict[Key, float] = {}

    def look(self, workers: Mapping[str, Mapping[Key, float]]) -> Mapping[Key, float]:
        """The totals, after the figures of the workers that are there, by their names.

        A key that a worker had and has no more counts as fallen. The result is live.
        """
        for worker_id, figures in workers.items():
            before = self._last.pop(worker_id, {})
            if any(figures.get(key, 0) < value for key, value in before.items()):
                before = {}
            for key, value in figures.items():
                grown = value - before.get(key, 0)  # first: so no rounding makes a total fall
                self._totals[key] = self._totals.get(key, 0) + grown
            self._last[worker_id] = figures
        while len(self._last) > len(workers) + self._num_ended:
            del self._last[next(iter(self._last))]
        return self._totals
