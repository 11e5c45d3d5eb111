"""This file is about watches that the API server refuses, or does not answer, for long.

Kopf asks nine times, for 54 seconds, and then ends that watch for good: the process lives on and
knows nothing more of what it watched. An API server can be away for longer, and rights come back.
"""

from collections.abc import Iterator
from itertools import chain, repeat

import kopf

FIRST_S = (1.0, 1.0, 2.0, 3.0, 5.0, 8.0)
LAST_S = 10.0


class EndlessBackoffs:
    """Seconds to wait between attempts: of every request anew, and without an end."""

    def __iter__(self) -> Iterator[float]:
        return chain(FIRST_S, repeat(LAST_S))


def never_give_up(settings: kopf.OperatorSettings) -> None:
    """Have kopf ask until it is answered."""
    settings.networking.error_backoffs = EndlessBackoffs()
