"""Event streams: any framing, any tearing, and what is not one."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_loadgen.client.events import BadEvents, EventStream


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def delta(**fields: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": fields}]})


FINISH = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
USAGE = event(
    {
        "choices": [],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 8},
        },
    }
)
REPLY = (
    delta(role="assistant", content="")
    + delta(content="Grün")
    + b": keep-alive\n\n"
    + delta(content=" tea")
    + FINISH
    + USAGE
    + b"data: [DONE]\n\n"
)


def read(*pieces: bytes) -> tuple[EventStream, int]:
    stream = EventStream(keep_text=True)
    return stream, sum(stream.feed(piece) for piece in pieces)


@given(st.lists(st.integers(0, len(REPLY)), max_size=12), st.booleans())
def test_a_reply_reads_the_same_however_it_is_torn(cuts: list[int], crlf: bool) -> None:
    places = sorted({0, *cuts, len(REPLY)})
    pieces = [REPLY[a:b] for a, b in pairwise(places)]
    if crlf:
        whole = REPLY.replace(b"\n", b"\r\n")
        pieces = [whole[i : i + 7] for i in range(0, len(whole), 7)]
    stream, count = read(*pieces)
    assert count == 2
    assert "".join(stream.text) == "Grün tea"
    assert stream.done
    assert stream.finished
    assert (stream.prompt_tokens, stream.cached_tokens, stream.output_tokens) == (9, 8, 3)


@pytest.mark.parametrize(
    "first",
    [
        delta(content="x"),
        delta(reasoning_content="hmm"),
        delta(reasoning="hmm"),
        delta(tool_calls=[{"index": 0, "function": {"name": "f"}}]),
        event({"choices": [{"index": 0, "text": "x"}]}),
    ],
)
def test_content_is_text_reasoning_or_a_tool_call(first: bytes) -> None:
    assert read(first)[1] == 1


@pytest.mark.parametrize(
    "first",
    [
        delta(role="assistant"),
        delta(content=""),
        delta(content=None),
        delta(tool_calls=[]),
        event({"choices": []}),
        b": ping\n\n",
        b"event: ping\ndata:\n\n",
    ],
)
def test_a_role_or_a_ping_is_no_content(first: bytes) -> None:
    assert read(first)[1] == 0


def test_an_error_event_is_noticed() -> None:
    assert read(event({"error": {"message": "out of memory"}}))[0].failed
    assert not read(event({"choices": [], "error": None}))[0].failed


def test_data_over_several_lines_is_one_event() -> None:
    first, second = b'data: {"choices": [{"delta":\n', b'data: {"content": "a"}}]}\n\n'
    stream, count = read(b"event: message\n" + first + second)
    assert (count, stream.text) == (1, ["a"])


@pytest.mark.parametrize(
    "data",
    [
        b"data: {no json\n\n",
        b"data: [1, 2]\n\n",
        b'data: {"choices": 5}\n\n',
        b"data: \xff\xfe\n\n",
        b'data: {"usage": {"completion_tokens": -5}}\n\n',
        b'data: {"usage": {"completion_tokens": 1000000000000}}\n\n',
        b"<html>\n<body>hello</body>\n\n",
    ],
)
def test_garbage_is_refused_without_quoting_it(data: bytes) -> None:
    with pytest.raises(BadEvents) as caught:
        read(data)
    assert "html" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_event_that_never_ends_is_refused() -> None:
    with pytest.raises(BadEvents, match="8 MiB"):
        read(*[b"data: " + b"x" * 100_000] * 100)


def test_text_is_kept_only_when_it_is_wanted() -> None:
    stream = EventStream()
    stream.feed(REPLY)
    assert stream.text == []
