"""This file is about seeing early that a probe can't pass any more, to stop it."""

from epidote_loadgen.records import Progress
from epidote_loadgen.slo import Objective, SloTable

MARGIN = 2.0  # misses over what the ratio allows before a probe is given up


class SaturationWatch:
    """Counts misses per objective while a probe runs.

    `num_planned` is all of the probe's requests: an objective is lost once more of its class's
    requests missed than could be missed if every request of the plan were of this class.
    """

    def __init__(self, slo: SloTable, num_planned: int) -> None:
        self._slo = slo
        self._num_planned = num_planned
        self._misses: dict[tuple[str, Objective], int] = {}

    def add(self, progress: Progress) -> bool:
        """Whether the probe is lost."""
        for record in progress.recent:
            slo_class = self._slo.class_of(record)
            for objective in slo_class.objectives if slo_class else ():
                if slo_class is None or not objective.judges(record):
                    continue
                if not objective.met_by(record):
                    key = (slo_class.name, objective)
                    self._misses[key] = self._misses.get(key, 0) + 1
        return any(
            misses > MARGIN * (1.0 - objective.ratio) * self._num_planned + 3
            for (_, objective), misses in self._misses.items()
        )
