"""This file is about one request on its way, until it has become a record."""

import time
from array import array
from collections.abc import Callable

from epidote_loadgen.client.events import BadEvents, EventStream
from epidote_loadgen.records import PlannedRequest, RequestRecord, RequestStatus
from epidote_loadgen.scoring import is_right

# A server that streams at full speed without end would fill the memory long before its time-out.
# Far over what any reply needs: several choices, a max_tokens in `extra_body`, logprobs in events.
FREE_EVENTS, EVENTS_A_TOKEN = 100_000, 16
FREE_BYTES, BYTES_A_TOKEN = 64 << 20, 16 << 10


class Exchange:
    """Mutable and slotted: thousands are open. `start_s` is the run's on `time.monotonic`.

    `ended` is called exactly once with the record, whatever happens.
    """

    __slots__ = (
        "_base_s",
        "_ended",
        "_most_bytes",
        "_most_events",
        "_num_bytes",
        "_offsets",
        "_start_s",
        "_stream",
        "cache",
        "connect_s",
        "flaw",
        "head",
        "http_status",
        "intended_s",
        "is_hopeless",
        "is_over",
        "num_retries",
        "planned",
        "sent_at_s",
        "waited_s",
    )

    def __init__(
        self,
        planned: PlannedRequest,
        intended_s: float,
        *,
        start_s: float,
        ended: Callable[["Exchange", RequestRecord], None],
    ) -> None:
        self.planned = planned
        self.intended_s = intended_s
        self._start_s = start_s
        self._base_s = start_s + intended_s
        self._ended = ended
        self._stream = EventStream(keep_text=planned.expected_answer is not None)
        self._offsets = array("f")
        self.head = b""  # its request line and headers
        self.flaw = ""  # why it can't be sent at all
        self.sent_at_s: float | None = None  # of time.monotonic; of the first send, if two
        self.waited_s = 0.0
        self.connect_s = 0.0
        self.http_status: int | None = None
        self.cache = ""
        self.num_retries = 0
        self.is_over = self.is_hopeless = False
        tokens = planned.attributes.max_output_tokens or 0
        self._most_events = FREE_EVENTS + EVENTS_A_TOKEN * tokens
        self._most_bytes = FREE_BYTES + BYTES_A_TOKEN * tokens
        self._num_bytes = 0

    def body(self, data: bytes, now_s: float) -> bool:
        """Take in a part of a streamed reply; whether that ended the exchange."""
        try:
            count = self._stream.feed(data)
        except BadEvents as error:
            self.is_hopeless = True
            self.end(RequestStatus.BAD_SSE, str(error))
            return True
        if count:
            self._offsets.extend([now_s - self._base_s] * count)
        self._num_bytes += len(data)
        if self._stream.done:
            self.complete()
        elif len(self._offsets) > self._most_events or self._num_bytes > self._most_bytes:
            self.is_hopeless = True
            told = f"{len(self._offsets)} events, {self._num_bytes >> 20} MiB and no end"
            self.end(RequestStatus.TOO_LONG, f"the reply is too long: {told}")
            return True
        return self._stream.done

    def complete(self) -> None:
        """The reply has ended as HTTP wants: was it whole?"""
        stream = self._stream
        if stream.failed:
            self.end(RequestStatus.SERVER_ERROR, "an error event in the stream")
        elif not stream.finished and not stream.done:
            self.end(RequestStatus.TRUNCATED, "the stream ended without [DONE] or a finish reason")
        elif not self._offsets:
            self.end(RequestStatus.EMPTY, "a reply without content")
        elif not stream.finished:
            self.end(RequestStatus.TRUNCATED, "[DONE] without a finish reason")
        else:
            self.end(RequestStatus.OK)

    def end(self, status: RequestStatus, error: str = "", *, is_cut: bool = False) -> None:
        """Become a record. Later ends of the same exchange are ignored."""
        if self.is_over:
            return
        self.is_over = True
        now_s = time.monotonic()
        stream, expected = self._stream, self.planned.expected_answer
        right = None
        if expected is not None and status is RequestStatus.OK:
            right = is_right(expected, "".join(stream.text))
        record = RequestRecord(
            index=self.planned.slot.index,
            class_name=self.planned.slot.class_name,
            attributes=self.planned.attributes,
            status=status,
            intended_send_s=self.intended_s,
            sent_s=None if self.sent_at_s is None else self.sent_at_s - self._start_s,
            waited_for_cap_s=self.waited_s,
            connect_s=self.connect_s,
            end_s=now_s - self._start_s,
            content_offsets_s=self._offsets,
            http_status=self.http_status,
            error=error,
            prompt_tokens=stream.prompt_tokens,
            cached_tokens=stream.cached_tokens,
            output_tokens=stream.output_tokens,
            expects_answer=expected is not None,
            correct=right,
            cache=self.cache,
            num_retries=self.num_retries,
            is_cut=is_cut,
        )
        self._ended(self, record)
