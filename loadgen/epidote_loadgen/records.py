"""This file is about the values that the parts of the load generator exchange, and their seams.

A `Schedule` yields slots: when, and for which class. A `Workload` turns a slot into a
`PlannedRequest`. The client turns that into a `RequestRecord`; a run is all of its records.
Times are seconds from the run's start on one monotonic clock, unless a name says otherwise.
All values can be pickled: a run may be spread over processes that each take a part of the slots.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from typing import Any, Protocol

from epidote_core.modality import Modality


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestAttributes:
    """What an SLO or a report may tell requests apart by. None: not known, not applicable."""

    modality: Modality = Modality.TEXT
    num_images: int = 0
    tenant: str = ""
    category: str = ""
    prompt_tokens: int | None = None  # as planned; the server's own count is in the record
    max_output_tokens: int | None = None
    prefix_id: str = ""  # equal ids share a prompt prefix
    image_ids: tuple[str, ...] = ()  # equal ids are the same picture
    group_id: str = ""  # paraphrases of one question; a cache may answer all alike
    is_trap: bool = False  # looks like its group but must be answered differently
    session_id: str = ""
    turn: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _attributes, (_attribute_values(self),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """One planned send. `item` counts within the class: what the payload is made from.

    `intended_send_s` is None in a closed loop, where the reply before decides.
    """

    index: int  # over all classes, in order of time; the request's identity in the run
    intended_send_s: float | None
    class_name: str
    item: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRequest:
    """A request, ready to be sent. `body` is the whole HTTP body, UTF-8 JSON with stream: true.

    `headers` come on top of the client's own; never a secret. `expected_answer` is what a right
    reply says, None where nobody knows.
    """

    slot: Slot
    body: bytes
    attributes: RequestAttributes = RequestAttributes()
    path: str = "/v1/chat/completions"
    headers: tuple[tuple[str, str], ...] = ()
    expected_answer: str | None = None


class Schedule(Protocol):
    """When requests are meant to be sent."""

    def slots(self) -> Iterator[Slot]:
        """All slots in order of time, lazily, index 0 first; each call starts anew and is equal."""
        ...

    def expected_by_class(self) -> Mapping[str, float]:
        """How many requests of each class are to be expected."""
        ...

    def peak_rps(self) -> float:
        """About the highest rate of sends."""
        ...


class Workload(Protocol):
    """What requests say. Calls come from one thread that is not the event loop's."""

    def request(self, slot: Slot) -> PlannedRequest:
        """A pure function of the workload's seed, the slot's class and its item."""
        ...


class RequestStatus(StrEnum):
    """How a request ended. Everything but OK misses its SLO."""

    OK = "ok"
    HTTP_ERROR = "http-error"  # a status other than 2xx; see `http_status`
    SERVER_ERROR = "server-error"  # an error event in mid-stream
    TIMEOUT = "timeout"  # not finished by the request's deadline
    CONNECT = "connect"  # refused, no route, TLS, name not found
    RESET = "reset"  # the connection broke before or within the reply
    TRUNCATED = "truncated"  # the stream ended without [DONE] or a finish reason
    BAD_SSE = "bad-sse"  # not an event stream, or events that are no JSON of this API
    TOO_LONG = "too-long"  # far more than was asked for, and no end: given up
    EMPTY = "empty"  # ended well without any content
    CAPPED = "capped"  # the in-flight cap was reached and the run says to drop
    UNSENT = "unsent"  # the client had no socket, or the run ended before its turn
    UNFINISHED = "unfinished"  # still open when the run ended, interrupted or out of patience


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestRecord:
    """What happened to one request, as the client saw it.

    `content_offsets_s` (float32) has the arrival of every event with content, counted from the
    intended send. One event may carry several tokens: `output_tokens` is the server's own count.
    """

    index: int
    class_name: str
    attributes: RequestAttributes
    status: RequestStatus
    intended_send_s: float
    sent_s: float | None = None  # the first byte was handed to the socket; None: never
    waited_for_cap_s: float = 0.0  # part of the lateness that a configured limit asked for
    connect_s: float = 0.0  # part of the lateness that opening a connection took
    end_s: float | None = None  # last byte, or when it was given up
    content_offsets_s: "array[float]" = field(default_factory=lambda: array("f"))
    http_status: int | None = None
    error: str = ""  # one short line, without prompt or reply
    prompt_tokens: int | None = None  # prompt, cached, output: from the reply's usage
    cached_tokens: int | None = None
    output_tokens: int | None = None
    expects_answer: bool = False  # what a right reply says is known: it is scored, if it comes
    correct: bool | None = None  # None: not scored
    cache: str = ""  # the gateway's cache header, "" without one
    num_retries: int = 0  # sends after the first, which met a connection that was closed already
    is_cut: bool = False  # ended by our own interrupt: nobody knows how it would have gone on

    def __reduce__(self) -> tuple[Any, ...]:
        return _record, (_record_values(self),)

    @property
    def ok(self) -> bool:
        return self.status is RequestStatus.OK

    @property
    def is_for_scoring(self) -> bool:
        """Whether its answer was scored, or would have been had it come."""
        return self.expects_answer or self.correct is not None

    @property
    def ttft_s(self) -> float | None:
        """From the intended send to the first event with content."""
        return self.content_offsets_s[0] if self.content_offsets_s else None

    @property
    def e2e_s(self) -> float | None:
        """From the intended send to the end of the reply; None unless it ended well."""
        if not self.ok or self.end_s is None:
            return None
        return self.end_s - self.intended_send_s

    @property
    def num_tokens(self) -> int:
        """The server's count; without one, events with content (each at least one token)."""
        return self.output_tokens or len(self.content_offsets_s)

    @property
    def tpot_s(self) -> float | None:
        """Mean time per token after the first; None without an end, or where all tokens came in
        one event: how far apart they were made is not known then."""
        if not self.ok or self.num_tokens < 2 or len(self.content_offsets_s) < 2:
            return None
        return (self.content_offsets_s[-1] - self.content_offsets_s[0]) / (self.num_tokens - 1)

    @property
    def itl_s(self) -> list[float]:
        """The gaps between events with content."""
        times = self.content_offsets_s
        return [times[i] - times[i - 1] for i in range(1, len(times))]

    @property
    def lateness_s(self) -> float | None:
        """How much later than intended it was sent; None when it was not."""
        return None if self.sent_s is None else self.sent_s - self.intended_send_s


# Records leave the process that sends while it sends: a dataclass's own way to be pickled goes
# through its fields one by one in Python, which takes three times as long.
_ATTRIBUTES = tuple(RequestAttributes.__dataclass_fields__)
_FIELDS = tuple(RequestRecord.__dataclass_fields__)
_attribute_values = attrgetter(*_ATTRIBUTES)
_record_values = attrgetter(*_FIELDS)


def _attributes(values: tuple[Any, ...]) -> RequestAttributes:
    return RequestAttributes(**dict(zip(_ATTRIBUTES, values, strict=True)))


def _record(values: tuple[Any, ...]) -> RequestRecord:
    return RequestRecord(**dict(zip(_FIELDS, values, strict=True)))


@dataclass(frozen=True, kw_only=True)
class SelfWatch:
    """How the client itself fared; the worst of its processes."""

    num_processes: int
    cpu_s: float  # of all processes
    cpu_utilization: float  # of the busiest process, of one core
    loop_lag_p99_s: float
    loop_lag_max_s: float
    lateness_p50_s: float  # of the schedule: without waits for a configured limit or a connection
    lateness_p99_s: float
    lateness_max_s: float
    max_in_flight: int
    num_connections: int  # opened during the run
    num_socket_errors: int  # no descriptor, no port: the client's own limits
    prepare_waits: int  # sends that waited for their payload to be made
    num_retries: int = 0  # requests sent once more, on a fresh connection
    cpu_wait_ratio: float = 0.0  # of the time, that a sender was ready to run and others ran


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A glance at a run in flight, for a live view. Rates over the last second."""

    at_s: float
    planned_duration_s: float | None
    asked_rps: float
    sent_rps: float
    finished_rps: float
    num_sent: int
    num_in_flight: int
    num_waiting: int  # planned, held back by a limit
    recent: tuple[RequestRecord, ...]  # finished since the last glance, of this process's part
    cpu_utilization: float
    loop_lag_s: float  # the worst of the last second


class Watcher(Protocol):
    """Looks at the service during a run: replicas, switches, decisions."""

    async def watch(self, now_s: Callable[[], float]) -> None:
        """Observe until cancelled, on the run's clock; its own failures never end the run."""
        ...

    def result(self) -> Mapping[str, Any]:
        """What was seen, as plain JSON values; called once after the end."""
        ...


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A whole run. `void_reason` says why the client's own limits make it worthless, else "".

    `config` is what was asked, secrets removed, and `config_digest` names it. Records come in
    order of index; after an interruption only the slots that were due are there.
    """

    config_digest: str
    config: Mapping[str, Any]
    seed: int
    started_at_unix_s: float
    duration_s: float
    records: tuple[RequestRecord, ...]
    self_watch: SelfWatch
    void_reason: str = ""
    interrupted: bool = False
    watch: Mapping[str, Any] = field(default_factory=dict)
