"""This file is about a simulated worker's work while it encodes or prefills.

An engine serves one role. It is given requests, calls `done` for each finished one, and can be
emptied of what it has not started, for drains. Time inside a batch is closed form: one event a
batch, which is what makes hundreds of thousands of requests a minute possible.
"""

from collections import deque
from collections.abc import Callable

from epidote_loadgen.simulate.events import Events
from epidote_loadgen.simulate.prefix_cache import PrefixCache
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_planner.performance import PerformanceProfile
from epidote_planner.snapshot import ServiceSample

Done = Callable[[SimRequest, float], None]


class EncodeEngine:
    """Encodes shards: some images of one request. Batches shards up to the profile's limit."""

    __slots__ = (
        "_batch",
        "_cost",
        "_done",
        "_events",
        "_queue",
        "busy_s",
        "num_waiting",
        "sample",
        "tokens",
    )

    def __init__(self, profile: PerformanceProfile, events: Events, done: Done) -> None:
        self._cost = profile.encode
        self._events = events
        self._done = done
        self._queue: deque[tuple[SimRequest, int, int]] = deque()
        self._batch: list[SimRequest] = []
        self.tokens = 0  # queued and running: the load that routing compares
        self.num_waiting = 0
        self.busy_s = 0.0
        self.sample: ServiceSample | None = None

    @property
    def num_running(self) -> int:
        return len(self._batch)

    @property
    def is_empty(self) -> bool:
        return not self._batch and not self._queue

    def waiting_tokens(self) -> float:
        return float(sum(tokens for _, _, tokens in self._queue))

    def add(self, request: SimRequest, images: int, tokens: int, now_s: float) -> None:
        self._queue.append((request, images, tokens))
        self.tokens += tokens
        self.num_waiting += images
        if not self._batch:
            self._start(now_s)

    def give_back(self) -> list[tuple[SimRequest, int, int]]:
        """Everything that has not started."""
        waiting = list(self._queue)
        self._queue.clear()
        self.tokens -= sum(tokens for _, _, tokens in waiting)
        self.num_waiting = 0
        return waiting

    def _start(self, now_s: float) -> None:
        images = tokens = 0
        queue = self._queue
        while queue and (not self._batch or images + queue[0][1] <= self._cost.max_images):
            request, count, size = queue.popleft()
            self._batch.append(request)
            images += count
            tokens += size
        self.num_waiting -= images
        took_s = self._cost.seconds(images, tokens)
        self.sample = ServiceSample(seconds=took_s, images=images, tokens=tokens)
        self.busy_s += took_s
        self._events.at(now_s + took_s, self._finish, tokens)

    def _finish(self, now_s: float, tokens: int) -> None:
        batch, self._batch = self._batch, []
        self.tokens -= tokens
        if self._queue:
            self._start(now_s)
        for request in batch:
            self._done(request, now_s)


class PrefillEngine:
    """Chunked prefill in order of arrival; with `inline_encode` it encodes first, in its step."""

    __slots__ = (
        "_batch",
        "_cost",
        "_done",
        "_encode",
        "_events",
        "_inline",
        "_queue",
        "busy_s",
        "prefix",
        "sample",
        "tokens",
    )

    def __init__(
        self,
        profile: PerformanceProfile,
        events: Events,
        done: Done,
        prefix: PrefixCache | None,
        *,
        inline_encode: bool = False,
    ) -> None:
        self._cost = profile.prefill
        self._encode = profile.encode
        self._events = events
        self._done = done
        self._inline = inline_encode
        self._queue: deque[SimRequest] = deque()
        self._batch: list[SimRequest] = []
        self.prefix = prefix
        self.tokens = 0
        self.busy_s = 0.0
        self.sample: ServiceSample | None = None

    @property
    def num_running(self) -> int:
        return len(self._batch)

    @property
    def num_waiting(self) -> int:
        return len(self._queue)

    @property
    def is_empty(self) -> bool:
        return not self._batch and not self._queue

    def waiting_tokens(self) -> float:
        return float(sum(r.prompt_tokens - r.cached_tokens - r.prefilled for r in self._queue))

    def hit_tokens(self, request: SimRequest) -> int:
        return self.prefix.hit_tokens(request) if self.prefix else 0

    def add(self, request: SimRequest, now_s: float) -> None:
        if self.prefix is not None:
            request.cached_tokens = self.prefix.hit_tokens(request)
        self._queue.append(request)
        self.tokens += request.prompt_tokens - request.cached_tokens
        if not self._batch:
            self._start(now_s)

    def give_back(self) -> list[SimRequest]:
        """Everything that has not started; a half prefilled prompt starts over elsewhere."""
        waiting = list(self._queue)
        self._queue.clear()
        for request in waiting:
            self.tokens -= request.prompt_tokens - request.cached_tokens - request.prefilled
            request.prefilled = request.cached_tokens = 0
        return waiting

    def _start(self, now_s: float) -> None:
        """Take the head's full chunks alone, then fill its last chunk's step with followers."""
        cost, queue = self._cost, self._queue
        budget = cost.max_tokens
        took_s = 0.0
        step = done = 0
        first = True
        while queue:
            request = queue[0]
            start = request.cached_tokens + request.prefilled
            left = request.prompt_tokens - start
            if not request.encoded and self._inline:
                took_s += self._encode.seconds(len(request.image_tokens), sum(request.image_tokens))
                request.encoded = True
            if first:
                full = (left - 1) // budget
                took_s += full * cost.base_s
                step = left - full * budget
                chunk = left
                first = False
            else:
                chunk = min(left, budget - step)
                if chunk <= 0:
                    break
                step += chunk
            took_s += chunk * (cost.per_token_s + cost.per_pair_s * (start + chunk / 2))
            done += chunk
            if chunk < left:
                request.prefilled += chunk
                break
            self._batch.append(request)
            queue.popleft()
        took_s += cost.base_s
        self.sample = ServiceSample(seconds=took_s, tokens=done)
        self.busy_s += took_s
        self._events.at(now_s + took_s, self._finish, done)

    def _finish(self, now_s: float, tokens: int) -> None:
        batch, self._batch = self._batch, []
        self.tokens -= tokens
        if self._queue:
            self._start(now_s)
        for request in batch:
            if self.prefix is not None:
                self.prefix.insert(request)
            self._done(request, now_s)
