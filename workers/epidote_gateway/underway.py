"""This file is about counting what this gateway has sent to each worker and not seen finished.

Workers report their load a few times a second; between two reports a burst would all go to the
worker that looked idle. Not shared between gateways: each knows its own part.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from epidote_core.generation import GenerateRequest, Route
from epidote_gateway.routing import Underway


class UnderwayCounts:
    """Per worker. Entries of workers without work are dropped."""

    def __init__(self) -> None:
        self.by_worker: dict[str, Underway] = {}

    def _add(
        self, worker_id: str, *, media: int = 0, sequences: int = 0, prefill_tokens: int = 0
    ) -> None:
        old = self.by_worker.get(worker_id, _NONE)
        new = Underway(
            num_media=old.num_media + media,
            num_sequences=old.num_sequences + sequences,
            prefill_tokens=old.prefill_tokens + prefill_tokens,
        )
        if new == _NONE:
            self.by_worker.pop(worker_id, None)
        else:
            self.by_worker[worker_id] = new

    @contextmanager
    def of(self, request: GenerateRequest, route: Route) -> Iterator["OneUnderway"]:
        """Count `request` on `route` until the block ends; `prefilled` ends a part sooner."""
        one = OneUnderway(self, request, route)
        one.start()
        try:
            yield one
        finally:
            one.prefilled()
            one.end()


_NONE = Underway()


class OneUnderway:
    """One request's part of the counts."""

    def __init__(self, counts: UnderwayCounts, request: GenerateRequest, route: Route) -> None:
        self._counts = counts
        self._route = route
        self._sequences = len(request.choices)
        self._tokens = len(request.prompt_token_ids)
        self._before_first_token = False

    def start(self) -> None:
        self._before_first_token = True
        self._prefill(1)
        self._counts._add(self._route.decode, sequences=self._sequences)

    def prefilled(self) -> None:
        """The first token is out: encoders and prefill are done with the request."""
        if self._before_first_token:
            self._before_first_token = False
            self._prefill(-1)

    def end(self) -> None:
        self._counts._add(self._route.decode, sequences=-self._sequences)

    def _prefill(self, sign: int) -> None:
        self._counts._add(self._route.prefill, prefill_tokens=sign * self._tokens)
        for _, worker_id in self._route.encode:
            self._counts._add(worker_id, media=sign)
