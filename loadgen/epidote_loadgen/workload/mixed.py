"""This file is about a whole workload: classes by name, each with its maker."""

from collections.abc import Mapping
from dataclasses import dataclass

from epidote_loadgen.records import PlannedRequest, Slot
from epidote_loadgen.workload.maker import Maker


@dataclass(frozen=True)
class MixedWorkload:
    """The workload that asks each slot's class for its request."""

    makers: Mapping[str, Maker]

    def request(self, slot: Slot) -> PlannedRequest:
        """A pure function of the makers' seeds, the slot's class and its item."""
        return self.makers[slot.class_name].request(slot)
