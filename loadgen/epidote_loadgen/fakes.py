"""This file is about the simplest workload there is, for trying the generator itself."""

import json
import time
from dataclasses import dataclass

from epidote_loadgen.records import PlannedRequest, Slot

BODY = json.dumps(
    {
        "model": "mock",
        "messages": [{"role": "user", "content": "Say something."}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
).encode()


@dataclass(frozen=True, kw_only=True)
class SameRequest:
    """Every request is the same one."""

    body: bytes = BODY

    def request(self, slot: Slot) -> PlannedRequest:
        return PlannedRequest(slot=slot, body=self.body)


@dataclass(frozen=True, kw_only=True)
class BrokenWorkload:
    """Can't make the request of one item."""

    broken_item: int = 0

    def request(self, slot: Slot) -> PlannedRequest:
        if slot.item >= self.broken_item:
            raise ValueError(f"no picture for item {slot.item}")
        return PlannedRequest(slot=slot, body=BODY)


@dataclass(frozen=True, kw_only=True)
class StuckWorkload:
    """Never comes back from making the request of `stuck_item` or a later one.

    `deaf`: in one call into C that holds the interpreter, so that no thread of the process runs.
    """

    stuck_item: int = 0
    deaf: bool = False

    def request(self, slot: Slot) -> PlannedRequest:
        if slot.item >= self.stuck_item:
            if self.deaf:
                sum(range(1 << 60))
            time.sleep(3600.0)
        return PlannedRequest(slot=slot, body=BODY)
