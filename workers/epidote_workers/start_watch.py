"""This file is about giving up on workers that will never be ready.

Serve starts a replica again for ever as long as one other of its deployment runs, and a fleet whose
encoder is up but whose decoders refuse their settings would be waited for without an end.
"""

import re
import time
from collections.abc import Callable

STUCK_S = 180.0  # of failures while no further worker becomes ready

# What was asked for can't be done: the next replica would refuse it, too.
_REFUSAL = re.compile(r"epidote_\w+(\.\w+)*\.(InvalidRequest|InvalidModel|PromptTooLong): ")


def last_line(message: str) -> str:
    """The last words of a deployment's message, which ends with a traceback; "" if it has none."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else ""


class StartWatch:
    """Looks at a deployment that starts."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._num_ready = -1
        self._failing_since_s: float | None = None

    def look(self, num_ready: int, message: str) -> str | None:
        """Why the start is hopeless; None: it is not.

        `message` is what Serve says of the deployment's last failure, "" before there was one.
        """
        said = last_line(message)
        if not said:
            self._failing_since_s = None
        elif self._failing_since_s is None or num_ready > self._num_ready:
            self._failing_since_s = self._clock()
        self._num_ready = max(num_ready, self._num_ready)
        if refusal := _REFUSAL.match(said):
            return said[refusal.end() :]
        since_s = self._failing_since_s
        return said if since_s is not None and self._clock() - since_s > STUCK_S else None
