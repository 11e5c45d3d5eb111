"""This file is about giving Ray's own processes the time that a busy machine needs.

Ray 2.60 gives a node 30 s to register, and a raylet gives its agents 30 s to say their ports, both
without a setting. The agents import much Python first, which takes longer where two cores are
shared by several fleets. The first limit is lifted here; a raylet that gave up needs another try.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from epidote_workers.process_tree import runs_below

logger = logging.getLogger(__name__)

NODE_START_S = 240.0
ATTEMPTS = 4
LOOK_S = 0.2


def wait_for_slow_nodes(patience_s: float = NODE_START_S) -> None:
    """Have this process look for a new node while its raylet runs, for `patience_s` at most.

    Private API of Ray.
    """
    with contextlib.suppress(ImportError, AttributeError):  # another Ray: it keeps its way
        from ray._private import services

        get_node = services.get_node

        def get_slow_node(*arguments: Any, **named: Any) -> Any:
            deadline_s = time.monotonic() + patience_s
            while True:
                try:
                    return get_node(*arguments, **named)
                except RuntimeError:  # not registered yet
                    if not runs_below("raylet") or time.monotonic() > deadline_s:
                        raise
                    time.sleep(LOOK_S)

        services.get_node = get_slow_node


def start_patiently(start: Callable[[], None], clear: Callable[[], None]) -> None:
    """Call `start` until it succeeds, `ATTEMPTS` times; `clear` takes away what failed.

    Raises:
        Exception: what the last attempt raised.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            start()
            return
        except Exception as error:  # of Ray, which has many kinds for one cause
            if attempt == ATTEMPTS:
                raise
            logger.warning("Ray did not start, trying again", extra={"error": repr(error)})
            clear()
