"""This file is about when the things that a client can see happened to one request."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RequestTiming:
    """The client's view of one request, on one clock.

    `arrival_s` is the intended arrival: a client that sends late does not hide the wait.
    """

    arrival_s: float
    first_token_s: float
    finished_s: float
    num_output_tokens: int
    failed: bool = False

    @property
    def ttft_s(self) -> float:
        """Time to first token."""
        return self.first_token_s - self.arrival_s

    @property
    def tpot_s(self) -> float:
        """Mean time per output token after the first; 0 for a single token."""
        if self.num_output_tokens <= 1:
            return 0.0
        return (self.finished_s - self.first_token_s) / (self.num_output_tokens - 1)

    @property
    def e2e_s(self) -> float:
        """End-to-end latency."""
        return self.finished_s - self.arrival_s
