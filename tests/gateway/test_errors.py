"""Refusals of whole requests: the status, OpenAI's body, and what its client makes of them."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import openai as openai_package
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI

from epidote_core.errors import InvalidRequest
from epidote_gateway.fakes import FakeBackend

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
HI = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b'{"messages":', b'{"a": NaN}', b"\xff\xfe", b'{"model": "\xff"}',
     b'{"messages":[{"role":"user","content":"\\ud800"}]}', b"{}{}", b"[" * 100_000],
)  # fmt: skip
@pytest.mark.parametrize("path", [CHAT, TEXT, "/tokenize", "/detokenize"])
async def test_what_is_no_json_is_refused(
    client: Any, path: str, body: bytes, assert_openai_error: Any
) -> None:
    response = await client.post(path, content=body, headers={"content-type": "application/json"})
    error = assert_openai_error(response, 400)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", [CHAT, TEXT, "/tokenize", "/detokenize"])
async def test_an_unknown_model_is_404(client: Any, path: str, assert_openai_error: Any) -> None:
    body = {"model": "gpt-9", "messages": HI} if path == CHAT else {"model": "gpt-9"}
    body |= {
        TEXT: {"prompt": "x"},
        "/tokenize": {"prompt": "x"},
        "/detokenize": {"tokens": []},
    }.get(path, {})
    error = assert_openai_error(await client.post(path, json=body), 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/v1/chat/completions/", 404),
        ("GET", CHAT, 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/metrics", 405),
        ("PATCH", "/admin/roles", 405),
    ],
)
async def test_wrong_paths_and_methods_have_openai_bodies(
    client: Any, method: str, path: str, status: int, assert_openai_error: Any
) -> None:
    response = await client.request(method, path)
    assert_openai_error(response, status)
    if status == 405:
        assert response.headers["allow"]


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_other_content_types_are_refused(
    client: Any, content_type: str, assert_openai_error: Any
) -> None:
    response = await client.post(CHAT, content=b"{}", headers={"content-type": content_type})
    assert_openai_error(response, 415)


async def test_json_with_a_charset_is_json(client: Any, chat: Any) -> None:
    response = await client.post(
        CHAT,
        content=json.dumps(chat()).encode(),
        headers={"content-type": "Application/JSON; charset=utf-8"},
    )
    assert response.status_code == 200


async def test_a_large_body_is_refused_by_its_declared_size(
    make_client: Any, chat: Any, assert_openai_error: Any
) -> None:
    client = make_client(max_body_bytes=1000)
    assert_openai_error(await client.post(CHAT, json=chat("x" * 1000)), 413)


async def test_a_large_body_of_undeclared_size_is_refused_too(
    make_client: Any, assert_openai_error: Any
) -> None:
    async def pieces() -> Any:
        for _ in range(100):
            yield b"x" * 100

    client = make_client(max_body_bytes=1000)
    response = await client.post(
        CHAT, content=pieces(), headers={"content-type": "application/json"}
    )
    assert_openai_error(response, 413)


async def test_a_body_that_trickles_in_is_given_up(
    make_client: Any, assert_openai_error: Any
) -> None:
    async def pieces() -> Any:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    client = make_client(body_timeout_s=0.05)
    response = await client.post(
        CHAT, content=pieces(), headers={"content-type": "application/json"}
    )
    assert_openai_error(response, 408)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("abc-123", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("two words", False),
        ('"quoted"', False),
        ("", False),
    ],
)
async def test_a_request_id_is_kept_if_harmless(client: Any, given: str, kept: bool) -> None:
    response = await client.get("/health", headers={"x-request-id": given})
    assert (response.headers["x-request-id"] == given) is kept


async def test_the_engines_refusal_reaches_the_client(
    client: Any, chat: Any, backend: FakeBackend, assert_openai_error: Any
) -> None:
    def refuse(*_: Any) -> None:
        raise InvalidRequest("top_k: too exotic", "top_k")

    backend.accept = refuse
    error = assert_openai_error(await client.post(CHAT, json=chat(stream=True)), 400)
    assert error["param"] == "top_k"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bug_is_a_500_that_tells_nothing(
    client: Any,
    chat: Any,
    backend: FakeBackend,
    stream: bool,
    caplog: Any,
    assert_openai_error: Any,
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("secret details")

    backend.accept = fail
    response = await client.post(CHAT, json=chat("private words", stream=stream))
    error = assert_openai_error(response, 500)
    assert "secret" not in response.text
    assert response.headers["x-request-id"] in error["message"]
    assert "request failed" in caplog.text
    assert "private words" not in caplog.text


async def test_openai_s_client_raises_its_own_exceptions(openai: AsyncOpenAI) -> None:
    with pytest.raises(openai_package.NotFoundError) as missing:
        await openai.chat.completions.create(model="nope", messages=HI)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai_package.BadRequestError) as bad:
        await openai.chat.completions.create(model="fake-vl", messages=HI, temperature=9)
    assert bad.value.param == "temperature"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


FIELDS = [
    "model", "messages", "prompt", "n", "max_tokens", "temperature", "top_p", "stop", "logit_bias",
    "seed", "stream", "stream_options", "logprobs", "top_logprobs", "tools", "tool_choice",
    "stop_token_ids", "echo", "response_format", "chat_template_kwargs", "tokens", "min_tokens",
]  # fmt: skip


@pytest.fixture
def short_client(make_client: Callable[..., Any]) -> Any:
    return make_client(default_max_tokens=8)


@settings(
    max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    path=st.sampled_from([CHAT, TEXT, "/tokenize", "/detokenize"]),
    body=st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4),
)
async def test_no_json_object_makes_a_server_error(
    short_client: Any, path: str, body: dict[str, Any], assert_openai_error: Any
) -> None:
    body = {"messages": HI, "prompt": "x", "tokens": [1], **body}
    response = await short_client.post(path, json=body)
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert_openai_error(response, response.status_code)
