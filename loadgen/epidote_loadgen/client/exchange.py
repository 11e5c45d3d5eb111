"""This file is about one request on its way, until it has become a record."""

import time
from array import array
from collections.abc import Callable

from epidote_loadgen.client.events import BadEvents, EventStream
from epidote_loadgen.records import PlannedRequest, RequestRecord, RequestStatus
from epidote_loadgen.scoring import is_right


class Exchange:
    """Mutable and slotted: thousands are open. `start_s` is the run's on `time.monotonic`.

    `ended` is called exactly once with the record, whatever happens.
    """

    __slots__ = (
        "_base_s",
        "_ended",
        "_offsets",
        "_start_s",
        "_stream",
        "cache",
        "connect_s",
        "flaw",
        "head",
        "http_status",
        "intended_s",
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
        self.is_over = False

    def body(self, data: bytes, now_s: float) -> bool:
        """Take in a part of a streamed reply; whether the reply is complete."""
        try:
            count = self._stream.feed(data)
        except BadEvents as error:
            self.end(RequestStatus.BAD_SSE, str(error))
            return True
        if count:
            self._offsets.extend([now_s - self._base_s] * count)
        if self._stream.done:
            self.complete()
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
