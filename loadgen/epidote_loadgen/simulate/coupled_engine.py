"""This file is about a simulated worker that does everything: the pool without roles.

As in an engine with chunked prefill (Sarathi-Serve, OSDI 2024): each step decodes every running
sequence, then spends what is left of the token budget on prompts. Images are encoded in the
step that starts their prompt, and everyone in the batch waits for it.
"""

from collections import deque
from heapq import heappop, heappush

from epidote_loadgen.simulate.engines import Done
from epidote_loadgen.simulate.events import Events
from epidote_loadgen.simulate.prefix_cache import PrefixCache
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_planner.performance import PerformanceProfile
from epidote_planner.snapshot import ServiceSample


class CoupledEngine:
    """One event a step while prompts wait; one per end of a sequence while none do."""

    __slots__ = (
        "_chunks",
        "_count",
        "_done",
        "_ends",
        "_events",
        "_first",
        "_from_s",
        "_profile",
        "_queue",
        "_running",
        "_step",
        "_version",
        "context",
        "prefix",
        "reserved",
        "sample",
        "tokens",
    )

    def __init__(
        self,
        profile: PerformanceProfile,
        events: Events,
        first_token: Done,
        done: Done,
        prefix: PrefixCache | None,
    ) -> None:
        self._profile = profile
        self._events = events
        self._first = first_token
        self._done = done
        self._queue: deque[SimRequest] = deque()
        self._ends: list[tuple[int, int, SimRequest]] = []
        self._chunks: list[tuple[SimRequest, int]] = []
        self._running = False
        self._count = self._step = self._version = 0
        self._from_s = 0.0
        self.context = 0.0
        self.reserved = 0
        self.tokens = 0
        self.prefix = prefix
        self.sample: ServiceSample | None = None

    @property
    def num_running(self) -> int:
        return len(self._ends) + (1 if self._chunks else 0)

    @property
    def num_waiting(self) -> int:
        return len(self._queue)

    @property
    def is_empty(self) -> bool:
        return not self._running

    @property
    def kv_utilization(self) -> float:
        return min(1.0, self.reserved / self._profile.decode.kv_tokens)

    def waiting_tokens(self) -> float:
        return float(self.tokens)

    def hit_tokens(self, request: SimRequest) -> int:
        return self.prefix.hit_tokens(request) if self.prefix else 0

    def add(self, request: SimRequest, now_s: float) -> None:
        if self.prefix is not None:
            request.cached_tokens = self.prefix.hit_tokens(request)
        self._queue.append(request)
        self.tokens += request.prompt_tokens - request.cached_tokens
        if not self._running:
            self._from_s = now_s
            self._next(now_s)
        elif len(self._queue) == 1 and not self._chunks:
            self._interrupt(now_s)

    def give_back(self) -> list[SimRequest]:
        """Requests of which nothing was computed."""
        computing = {id(request) for request, _ in self._chunks}
        begun = [r for r in self._queue if r.prefilled > 0 or id(r) in computing]
        fresh = [r for r in self._queue if r.prefilled == 0 and id(r) not in computing]
        self._queue = deque(begun)
        for request in fresh:
            self.tokens -= request.prompt_tokens - request.cached_tokens
            request.cached_tokens = 0
        return fresh

    def _interrupt(self, now_s: float) -> None:
        """A prompt arrived while only decoding: stop at the end of the step that runs now."""
        step_s = self._decode_step_s()
        growth = self._profile.decode.per_context_token_s * len(self._ends)
        steps, span, target = 0, 0.0, now_s - self._from_s
        if growth * target < 0.01 * step_s * step_s:  # growth inside the wait is negligible
            steps = int(target / step_s)
            span = steps * step_s + growth * steps * (steps - 1) / 2
        while span <= target:
            span += step_s + growth * steps
            steps += 1
        left = self._ends[0][0] - self._step
        if steps >= left:
            return
        self._version += 1
        self._events.at(self._from_s + span, self._finish, (self._version, steps))

    def _decode_step_s(self) -> float:
        cost = self._profile.decode
        return cost.base_s + (
            len(self._ends) * cost.per_sequence_s + self.context * cost.per_context_token_s
        )

    def _next(self, now_s: float) -> None:
        self._fill()
        n = len(self._ends)
        self._running = bool(n or self._chunks)
        if not self._running:
            return
        self._version += 1
        decode = self._profile.decode
        if self._chunks:
            took_s, tokens = self._chunk_s(), sum(size for _, size in self._chunks)
            if n:
                took_s += self._decode_step_s() - decode.base_s
            took_s += max(self._profile.prefill.base_s, decode.base_s if n else 0.0)
            self.sample = ServiceSample(seconds=took_s, sequences=n, tokens=tokens)
            steps = 1
        else:
            steps = self._ends[0][0] - self._step
            growth = decode.per_context_token_s * n * steps * (steps - 1) / 2
            took_s = steps * self._decode_step_s() + growth
            self.sample = ServiceSample(
                seconds=self._decode_step_s(), sequences=n, context=self.context
            )
        self._events.at(now_s + took_s, self._finish, (self._version, steps))

    def _fill(self) -> None:
        """Choose this step's chunks; a prompt is admitted when its KV fits."""
        decode, budget = self._profile.decode, self._profile.prefill.max_tokens - len(self._ends)
        for request in self._queue:
            if budget <= 0:
                return
            held = request.prompt_tokens + request.output_tokens
            if request.prefilled == 0:
                busy = len(self._ends) + len(self._chunks)
                full = self.reserved + held > decode.kv_tokens and self.reserved > 0
                if full or busy >= decode.max_sequences:
                    return
                self.reserved += held
            left = request.prompt_tokens - request.cached_tokens - request.prefilled
            chunk = min(left, budget)
            self._chunks.append((request, chunk))
            budget -= chunk

    def _chunk_s(self) -> float:
        cost, encode, took_s = self._profile.prefill, self._profile.encode, 0.0
        for request, chunk in self._chunks:
            if not request.encoded:
                took_s += encode.seconds(len(request.image_tokens), sum(request.image_tokens))
                request.encoded = True
            start = request.cached_tokens + request.prefilled
            took_s += chunk * (cost.per_token_s + cost.per_pair_s * (start + chunk / 2))
        return took_s

    def _finish(self, now_s: float, argument: tuple[int, int]) -> None:
        version, steps = argument
        if version != self._version:
            return
        self._step += steps
        self._from_s = now_s
        self.context += steps * len(self._ends)
        finished = []
        while self._ends and self._ends[0][0] <= self._step:
            finished.append(self._leave(heappop(self._ends)[2]))
        firsts = []
        for request, chunk in self._chunks:
            request.prefilled += chunk
            self.tokens -= chunk
            if request.prefilled + request.cached_tokens < request.prompt_tokens:
                continue
            self._queue.popleft()
            firsts.append(request)
            self._count += 1
            self.context += request.prompt_tokens + 1
            if self.prefix is not None:
                self.prefix.insert(request)
            if request.output_tokens <= 1:
                finished.append(self._leave(request))
            else:
                last = self._step + request.output_tokens - 1
                heappush(self._ends, (last, self._count, request))
        self._chunks = []
        self._next(now_s)
        for request in firsts:
            self._first(request, now_s)
        for request in finished:
            self._done(request, now_s)

    def _leave(self, request: SimRequest) -> SimRequest:
        held = request.prompt_tokens + request.output_tokens
        self.context -= held
        self.reserved -= held
        return request
