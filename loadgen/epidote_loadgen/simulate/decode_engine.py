"""This file is about a simulated worker's continuous batching while it decodes.

Between two changes of the batch every step is known in advance: with n sequences that hold K
tokens, step i takes a + b·n + c·(K + i·n). So k steps take k·(a + b·n + c·K) + c·n·k·(k−1)/2,
and the engine needs an event only where a sequence joins or ends.
"""

from collections import deque
from heapq import heappop, heappush
from math import sqrt

from epidote_loadgen.simulate.engines import Done
from epidote_loadgen.simulate.events import Events
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_planner.performance import PerformanceProfile
from epidote_planner.snapshot import ServiceSample


class DecodeEngine:
    """Joins happen at step boundaries. KV room for the whole answer is reserved on joining."""

    __slots__ = (
        "_cost",
        "_count",
        "_done",
        "_ends",
        "_events",
        "_from_s",
        "_step",
        "_version",
        "context",
        "factor",
        "reserved",
        "waiting",
    )

    def __init__(self, profile: PerformanceProfile, events: Events, done: Done) -> None:
        self._cost = profile.decode
        self._events = events
        self._done = done
        self.waiting: deque[SimRequest] = deque()
        self._ends: list[tuple[int, int, SimRequest]] = []  # (step of the last token, order, who)
        self._count = 0
        self._step = 0  # steps taken at `_from_s`, which is a step boundary
        self._from_s = 0.0
        self._version = 0
        self.context = 0.0
        self.reserved = 0  # KV tokens of running and waiting requests
        self.factor = 1.0

    @property
    def num_running(self) -> int:
        return len(self._ends)

    @property
    def num_waiting(self) -> int:
        return len(self.waiting)

    @property
    def tokens(self) -> int:
        return self.reserved

    @property
    def is_empty(self) -> bool:
        return not self._ends and not self.waiting

    @property
    def sample(self) -> ServiceSample | None:
        if not self._ends:
            return None
        return ServiceSample(
            seconds=self._step_s(), sequences=len(self._ends), context=self.context
        )

    @property
    def kv_utilization(self) -> float:
        return min(1.0, self.reserved / self._cost.kv_tokens)

    def waiting_tokens(self) -> float:
        return 0.0

    def add(self, request: SimRequest, now_s: float) -> None:
        self.waiting.append(request)
        self.reserved += request.prompt_tokens + request.output_tokens
        if self._ends:
            self._boundary(now_s)
        else:
            self._from_s = now_s
            self._admit(now_s)

    def give_back(self) -> list[SimRequest]:
        """Requests that have not joined the batch."""
        waiting = list(self.waiting)
        self.waiting.clear()
        self.reserved -= sum(r.prompt_tokens + r.output_tokens for r in waiting)
        return waiting

    def stretch(self, factor: float, now_s: float) -> None:
        """Make steps slower or faster from the next boundary on (expert skew)."""
        self._boundary(now_s, factor)

    def _step_s(self) -> float:
        cost, n = self._cost, len(self._ends)
        return self.factor * (
            cost.base_s + n * cost.per_sequence_s + self.context * cost.per_context_token_s
        )

    def _span_s(self, steps: int) -> float:
        growth = self.factor * self._cost.per_context_token_s * len(self._ends)
        return steps * self._step_s() + growth * steps * (steps - 1) / 2

    def _boundary(self, now_s: float, factor: float | None = None) -> None:
        """Have an event at the end of the step that runs now."""
        passed = now_s - self._from_s
        step_s = self._step_s()
        growth = self.factor * self._cost.per_context_token_s * len(self._ends)
        if growth <= 0.0:
            steps = int(passed / step_s) + 1
        else:  # solve growth/2·k² + (step − growth/2)·k = passed
            half = step_s - growth / 2
            steps = int((sqrt(half * half + 2 * growth * passed) - half) / growth) + 1
        left = self._ends[0][0] - self._step if self._ends else 0
        steps = min(steps, left)
        self._version += 1
        self._events.at(
            max(now_s, self._from_s + self._span_s(steps)),
            self._advance,
            (self._version, steps, factor),
        )

    def _advance(self, now_s: float, argument: tuple[int, int, float | None]) -> None:
        version, steps, factor = argument
        if version != self._version:
            return
        self._step += steps
        self._from_s = now_s
        self.context += steps * len(self._ends)
        if factor is not None:
            self.factor = factor
        ends, finished = self._ends, []
        while ends and ends[0][0] <= self._step:
            request = heappop(ends)[2]
            held = request.prompt_tokens + request.output_tokens
            self.context -= held
            self.reserved -= held
            finished.append(request)
        self._admit(now_s)
        for request in finished:
            self._done(request, now_s)

    def _admit(self, now_s: float) -> None:
        cost, ends, waiting = self._cost, self._ends, self.waiting
        if waiting:
            free = (
                cost.kv_tokens
                - self.reserved
                + sum(r.prompt_tokens + r.output_tokens for r in waiting)
            )
            while waiting and len(ends) < cost.max_sequences:
                request = waiting[0]
                held = request.prompt_tokens + request.output_tokens
                if held > free and ends:
                    break
                waiting.popleft()
                free -= held
                self._count += 1
                # prefill gave the first token, so output_tokens - 1 steps remain
                heappush(ends, (self._step + request.output_tokens - 1, self._count, request))
                self.context += request.prompt_tokens + 1
        self._version += 1
        if ends:
            steps = ends[0][0] - self._step
            self._events.at(
                now_s + self._span_s(steps), self._advance, (self._version, steps, None)
            )
