"""This file is about the simplest workload there is, for trying the generator itself."""

import json
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
