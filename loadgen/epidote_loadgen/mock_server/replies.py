"""This file is about the bytes that the mock server sends: OpenAI events, ready made."""

import json

MODEL = "mock"
WORD = "word "
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
_IDENTITY = {"id": "mock-1", "object": "chat.completion.chunk", "created": 0, "model": MODEL}


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(value: object) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def _choice(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    return event({**_IDENTITY, "choices": choices})


ROLE = chunk(_choice({"role": "assistant", "content": ""}))
TOKEN = chunk(_choice({"content": WORD}))
FINISH = _choice({}, "stop")
DONE = b"data: [DONE]\n\n"
GARBAGE = chunk(b"data: {no json at all\n\n")
ERROR_EVENT = chunk(event({"error": {"message": "out of memory", "type": "server_error"}}))


def ending(prompt_tokens: int, output_tokens: int, *, usage: bool) -> bytes:
    """Finish reason, usage if asked for, [DONE], end of body."""
    parts = [FINISH]
    if usage:
        parts.append(
            event({**_IDENTITY, "choices": [], "usage": _usage(prompt_tokens, output_tokens)})
        )
    return chunk(b"".join([*parts, DONE])) + LAST_CHUNK


def whole(prompt_tokens: int, output_tokens: int) -> bytes:
    """A completion that is not streamed."""
    message = {"role": "assistant", "content": WORD * output_tokens}
    return response(
        200,
        {
            **_IDENTITY,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": _usage(prompt_tokens, output_tokens),
        },
    )


def response(status: int, value: object, *, kind: str = "application/json") -> bytes:
    """A complete HTTP response; `value` is JSON, or a text of another `kind`."""
    body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
    head = f"HTTP/1.1 {status} Mock\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def error(status: int, message: str) -> bytes:
    """An OpenAI error body."""
    return response(status, {"error": {"message": message, "type": "mock", "code": status}})


def _usage(prompt_tokens: int, output_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
    }
