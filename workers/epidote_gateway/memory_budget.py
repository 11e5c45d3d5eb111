"""This file is about memory that clients make a gateway hold: bounded in total.

Limits of one request bound nothing while requests are many: bodies being read, requests that wait
with their pictures in base64, and the prepared pictures of those being answered share one budget.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from epidote_gateway.api_errors import ApiError, overloaded


class MemoryBudget:
    """Bytes, for one event loop."""

    def __init__(
        self,
        num_bytes: int,
        *,
        retry_after_s: float,
        on_change: Callable[[int], None] = lambda held: None,
    ) -> None:
        """`on_change(bytes held)` is called after every change."""
        self.num_bytes = num_bytes
        self._retry_after_s = retry_after_s
        self._on_change = on_change
        self._num_held = 0

    @contextmanager
    def hold(self) -> Iterator["Holding"]:
        """What one request holds; given back at the end."""
        holding = Holding(self)
        try:
            yield holding
        finally:
            holding.keep(0)

    def _change(self, num_bytes: int) -> None:
        self._num_held += num_bytes
        self._on_change(self._num_held)

    def _check(self, own: int, more: int) -> None:
        if own + more > self.num_bytes:
            raise ApiError(
                413,
                f"one request may make this server hold at most {self.num_bytes} bytes",
                code="request_too_large",
            )
        if self._num_held + more > self.num_bytes:
            raise overloaded("other requests hold this server's memory", self._retry_after_s)


class Holding:
    """The bytes of one request."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._num_bytes = 0

    def check_room(self, num_bytes: int) -> None:
        """Raise as `grow` would; nothing changes."""
        self._budget._check(self._num_bytes, num_bytes)

    def grow(self, num_bytes: int) -> None:
        """Hold so many more.

        Raises:
            ApiError: 429 with Retry-After, others hold too much; 413, it can never fit.
        """
        self.check_room(num_bytes)
        self._num_bytes += num_bytes
        self._budget._change(num_bytes)

    def keep(self, num_bytes: int) -> None:
        """Give back all but `num_bytes`."""
        given_back = self._num_bytes - min(num_bytes, self._num_bytes)
        self._num_bytes -= given_back
        self._budget._change(-given_back)
