"""This file is about how long a request that gets no further is kept: losses, full and no workers.

A token resets everything except the totals of losses and of deaths. A request that breaks its
workers must not end the fleet: the second worker that breaks while it has the request is the last.
Planned moves (drains, role switches) are no losses; without a token in between they go on for
`no_worker_timeout_s` at most.
"""

from collections.abc import Callable

from epidote_core.errors import Overloaded, WorkerLost
from epidote_gateway.api_errors import ApiError, no_worker, overloaded
from epidote_gateway.settings import GatewaySettings

TOTAL_LOSSES = 4  # times `max_resumes`
SHORT_S = 2.0  # an attempt that lasted longer was taken up by a worker: the deadline starts anew
MIN_PAUSE_S, MAX_PAUSE_S = 0.02, 0.25  # between attempts at a full fleet


class Patience:
    """One request's."""

    def __init__(self, settings: GatewaySettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._num_losses = 0
        self._num_deaths = 0
        self._num_losses_in_a_row = 0
        self._full_since_s: float | None = None
        self._stuck_since_s: float | None = None
        self._attempt_since_s = clock()

    def attempt(self) -> None:
        """A route was found."""
        self._attempt_since_s = self._clock()

    def got_tokens(self) -> None:
        self._full_since_s = self._stuck_since_s = None
        self._num_losses_in_a_row = 0

    def lost(self, error: WorkerLost) -> None:
        """A worker was lost.

        Raises:
            ApiError: 503, too often; 500 if that many broke while they had the request.
        """
        self._num_deaths += error.is_death
        if self._num_deaths >= self._settings.max_deaths:
            raise ApiError(
                500,
                f"{self._num_deaths} workers broke while they computed this request; it is not "
                "tried again",
                code="workers_broke",
            ) from error
        self._num_losses += 1
        self._num_losses_in_a_row += 1
        most = self._settings.max_resumes
        if self._num_losses_in_a_row > most or self._num_losses > most * TOTAL_LOSSES:
            raise no_worker("the request lost its worker too often") from error
        self._note_stuck()

    def moved(self, error: WorkerLost) -> None:
        """A worker that drains or switches handed the request back, or refused it.

        Raises:
            ApiError: 503, for too long nothing else happened.
        """
        if self._note_stuck() > self._settings.no_worker_timeout_s:
            raise no_worker("the request was only handed on") from error

    def _note_stuck(self) -> float:
        """An attempt has failed; for how long none had a token."""
        now_s = self._clock()
        if self._stuck_since_s is None or now_s - self._attempt_since_s > SHORT_S:
            self._stuck_since_s = now_s
        return now_s - self._stuck_since_s

    def pause_when_full(self, error: Overloaded) -> float:
        """Seconds to wait before the next attempt at a fleet that took nothing.

        Raises:
            ApiError: 429, it has been full for `queue_timeout_s`.
        """
        now_s = self._clock()
        if self._full_since_s is None:
            self._full_since_s = now_s
        if now_s - self._full_since_s > self._settings.queue_timeout_s:
            raise overloaded(str(error), error.retry_after_s) from error
        return min(max(error.retry_after_s, MIN_PAUSE_S), MAX_PAUSE_S)

    def deadline_s(self) -> float:
        """When to stop looking for workers, on the clock: some time after the first loss."""
        since_s = self._clock() if self._stuck_since_s is None else self._stuck_since_s
        return since_s + self._settings.no_worker_timeout_s
