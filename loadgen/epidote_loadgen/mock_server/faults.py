"""This file is about the ways in which the mock server misbehaves on demand."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random


class Fault(StrEnum):
    """What happens to a request that the dice pick."""

    HTTP_500 = "http-500"
    HTTP_429 = "http-429"
    NOT_SSE = "not-sse"  # 200 and an HTML page
    REFUSE = "refuse"  # the connection is reset before a byte of reply
    RESET = "reset"  # reset after the first token
    TRUNCATE = "truncate"  # a proper end of the body, but no finish reason and no [DONE]
    GARBAGE = "garbage"  # events that are no JSON
    ERROR_EVENT = "error-event"  # an OpenAI error object in mid-stream
    EMPTY = "empty"  # ends well, says nothing
    HANG = "hang"  # falls silent after the first token, for ever
    ENDLESS = "endless"  # tokens without end


@dataclass(frozen=True)
class FaultMix:
    """Shares of requests by fault, together at most 1; the rest is served well."""

    shares: Mapping[Fault, float] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if any(share < 0.0 for share in self.shares.values()) or sum(self.shares.values()) > 1.0:
            found = ", ".join(f"{fault}={share:g}" for fault, share in self.shares.items())
            raise ValueError(f"fault: want shares >= 0 that add up to at most 1, found {found}")

    def pick(self, key: str) -> Fault | None:
        """The fault of the request named `key`; None: none."""
        if not self.shares:
            return None
        chance = Random(f"{self.seed}/{key}/fault").random()
        for fault, share in self.shares.items():
            chance -= share
            if chance < 0.0:
                return fault
        return None


def parse_fault(text: str) -> tuple[Fault, float]:
    """`reset` (always) or `reset=0.1`.

    Raises:
        ValueError: naming the known faults.
    """
    name, _, share = text.partition("=")
    try:
        return Fault(name), float(share or 1.0)
    except ValueError:
        known = ", ".join(Fault)
        raise ValueError(f"fault: want NAME or NAME=SHARE with {known}; got {text!r}") from None
