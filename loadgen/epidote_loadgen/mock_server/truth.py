"""This file is about what the mock server knows about the requests it got."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(kw_only=True, slots=True)
class ServedRequest:
    """One request as the server saw it; seconds since its first request, on its own clock."""

    key: str  # the client's x-request-id, else the server's own number
    arrival_s: float  # its last byte was read
    due_s: float  # when the law wanted the first token sent
    first_token_s: float | None = None  # when it was
    end_s: float | None = None
    fault: str = ""


class TruthLog:
    """Every request in order of arrival, and the clock they are told by."""

    def __init__(self) -> None:
        self.start_s: float | None = None  # of time.monotonic, at the first request
        self.served: list[ServedRequest] = []
        self.num_open = self.max_open = 0

    def opened(self) -> None:
        self.num_open += 1
        self.max_open = max(self.max_open, self.num_open)

    def closed(self) -> None:
        self.num_open -= 1

    def attainment(self, *, ttft_s: float) -> float:
        """Share of arrivals with a first token in time; 1.0 of none.

        From the arrival here: a client that held requests back is not seen through.
        """
        met = [
            r.first_token_s is not None and r.first_token_s - r.arrival_s <= ttft_s
            for r in self.served
        ]
        return sum(met) / len(met) if met else 1.0

    def to_json(self) -> dict[str, Any]:
        """`start_s` is the host's monotonic clock, which other processes here share."""
        return {
            "start_s": self.start_s,
            "max_open": self.max_open,
            "served": [asdict(request) for request in self.served],
        }
