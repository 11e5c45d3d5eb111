"""This file is about which workers a request stays away from after it lost them."""

from collections.abc import Callable, Sequence

from epidote_core.worker_view import WorkerView

AVOID_S = 2.0  # a dead worker has left the view by then; one that only refused is worth a try


class Avoidance:
    """A lost worker is avoided until its role switched (new epoch) or `AVOID_S` passed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[str, tuple[int | None, float]] = {}

    def add(self, worker_id: str, workers: Sequence[WorkerView]) -> None:
        epoch = next((w.epoch for w in workers if w.worker_id == worker_id), None)
        self._until[worker_id] = (epoch, self._clock() + AVOID_S)

    def now(self, workers: Sequence[WorkerView]) -> frozenset[str]:
        """The workers to avoid now."""
        if not self._until:
            return frozenset()
        now_s = self._clock()
        epochs = {w.worker_id: w.epoch for w in workers}
        return frozenset(
            worker_id
            for worker_id, (epoch, until_s) in self._until.items()
            if now_s < until_s and (epoch is None or epochs.get(worker_id, epoch) == epoch)
        )
