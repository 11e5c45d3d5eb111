"""Every refusal: the status, OpenAI's body, and the path of the field at fault."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import openai as openai_package
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI

from epidote_core.errors import InvalidRequest
from epidote_core.roles import Role
from epidote_core.worker_view import WorkerLoad
from epidote_gateway.fakes import FakeBackend

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
HI = [{"role": "user", "content": "hi"}]


def assert_openai_error(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert set(response.json()) == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["type"]
    assert error["code"]
    return error


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b'{"messages":', b'{"a": NaN}', b"\xff\xfe", b'{"model": "\xff"}',
     b'{"messages":[{"role":"user","content":"\\ud800"}]}', b"{}{}", b"[" * 100_000],
)  # fmt: skip
@pytest.mark.parametrize("path", [CHAT, TEXT, "/tokenize", "/detokenize"])
async def test_what_is_no_json_is_refused(client: Any, path: str, body: bytes) -> None:
    response = await client.post(path, content=body, headers={"content-type": "application/json"})
    error = assert_openai_error(response, 400)
    assert error["type"] == "invalid_request_error"


BAD_CHAT: list[tuple[dict[str, Any], str, str]] = [
    ({"messages": None}, "messages", "invalid_type"),
    ({"messages": []}, "messages", "invalid_value"),
    ({"messages": "hi"}, "messages", "invalid_type"),
    ({"messages": [{}]}, "messages[0].role", "missing_required_parameter"),
    ({"messages": [*HI, {"role": "user"}]}, "messages[1].content", "missing_required_parameter"),
    ({"messages": [{"role": "robot", "content": ""}]}, "messages[0].role", "invalid_value"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
    (
        {"messages": [{"role": "user", "content": [{"type": "video_url"}]}]},
        "messages[0].content[0].type",
        "invalid_value",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
        "missing_required_parameter",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0].image_url.url",
        "missing_required_parameter",
    ),
    ({"temperature": 2.5}, "temperature", "invalid_value"),
    ({"temperature": -0.1}, "temperature", "invalid_value"),
    ({"temperature": "hot"}, "temperature", "invalid_type"),
    ({"top_p": 0}, "top_p", "invalid_value"),
    ({"top_p": 1.1}, "top_p", "invalid_value"),
    ({"top_p": 1e-46}, "top_p", "invalid_value"),
    ({"top_k": -2}, "top_k", "invalid_value"),
    ({"min_p": 2}, "min_p", "invalid_value"),
    ({"n": 0}, "n", "invalid_value"),
    ({"n": 129}, "n", "invalid_value"),
    ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
    ({"max_tokens": 5000}, "max_tokens", "context_length_exceeded"),
    (
        {"max_completion_tokens": 5000},
        "max_completion_tokens",
        "context_length_exceeded",
    ),
    ({"max_completion_tokens": -1}, "max_completion_tokens", "invalid_value"),
    ({"presence_penalty": 3}, "presence_penalty", "invalid_value"),
    ({"frequency_penalty": -3}, "frequency_penalty", "invalid_value"),
    ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
    ({"repetition_penalty": 1e-40}, "repetition_penalty", "invalid_value"),
    ({"seed": 2**63}, "seed", "invalid_value"),
    ({"seed": 10**40}, "seed", "invalid_value"),
    ({"stop": ""}, "stop", "invalid_value"),
    ({"stop": ["a", ""]}, "stop[1]", "invalid_value"),
    ({"stop": ["a"] * 17}, "stop", "invalid_value"),
    ({"stop": "a" * 1025}, "stop", "invalid_value"),
    ({"min_tokens": 30}, "min_tokens", "invalid_value"),
    ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"99999": 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"0" * 5000: 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"9" * 5000: 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"0" * 20 + "9999999": 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"-1": 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"\u0663": 1}}, "logit_bias", "invalid_value"),
    ({"stop_token_ids": [-1]}, "stop_token_ids[0]", "invalid_value"),
    ({"stop_token_ids": [100_000]}, "stop_token_ids", "invalid_value"),
    ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
    ({"logprobs": 1}, "logprobs", "invalid_type"),
    ({"stream": "yes"}, "stream", "invalid_type"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
    ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
    ({"functions": [{}]}, "functions", "unsupported_parameter"),
    ({"modalities": ["audio"]}, "modalities", "unsupported_parameter"),
    ({"audio": {"voice": "x"}}, "audio", "unsupported_parameter"),
    ({"guided_json": {"a": 1}}, "guided_json", "unsupported_parameter"),
    ({"structured_outputs": {"json": {}}}, "structured_outputs", "unsupported_parameter"),
    ({"use_beam_search": True}, "use_beam_search", "unsupported_parameter"),
    ({"best_of": 2}, "best_of", "unsupported_parameter"),
    ({"prompt_logprobs": 1}, "prompt_logprobs", "unsupported_parameter"),
    ({"continue_final_message": True}, "continue_final_message", "unsupported_parameter"),
    ({"chat_template": "x"}, "chat_template", "unsupported_parameter"),
    (
        {"chat_template_kwargs": {"messages": 1}},
        "chat_template_kwargs.messages",
        "invalid_value",
    ),
    ({"cache_salt": "x" * 300}, "cache_salt", "invalid_value"),
    ({"priority": 2**40}, "priority", "invalid_value"),
    (
        {"messages": [{"role": "user", "content": "x" * 5000}]},
        "messages",
        "context_length_exceeded",
    ),
]


@pytest.mark.parametrize(("change", "field", "code"), BAD_CHAT, ids=lambda v: str(v)[:60])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_bad_field_of_a_chat_is_named(
    client: Any, chat: Any, change: dict[str, Any], field: str, code: str, stream: bool
) -> None:
    body = {**chat(stream=stream and "stream_options" not in change), **change}
    error = assert_openai_error(await client.post(CHAT, json=body), 400)
    assert (error["param"], error["code"]) == (field, code)
    assert error["message"].startswith(field if code != "context_length_exceeded" else "")


ACCEPTED: list[dict[str, Any]] = [
    {"temperature": None, "stop": None, "n": None, "seed": None, "logit_bias": None},
    {"stop": []},
    {"response_format": {"type": "text"}},
    {"tools": [], "functions": None, "modalities": ["text"], "best_of": 1},
    {"tools": [{"type": "function"}], "tool_choice": "none"},
    {"guided_json": None, "structured_outputs": None, "use_beam_search": False},
    {"store": True, "metadata": {"a": "b"}, "parallel_tool_calls": True, "service_tier": "auto"},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"top_k": 0, "ignore_eos": True},
    {"stream": True, "stream_options": {"include_usage": False}},
    {"stream": True, "stream_options": {}},
    {"logprobs": False, "top_logprobs": None},
    {"seed": -(2**63)},
    {"model": None},
]


@pytest.mark.parametrize("change", ACCEPTED, ids=str)
async def test_what_clients_send_in_good_faith_is_accepted(
    client: Any, chat: Any, change: dict[str, Any]
) -> None:
    response = await client.post(CHAT, json={**chat(), **change})
    assert response.status_code == 200, response.text


BAD_TEXT: list[tuple[dict[str, Any], str]] = [
    ({"prompt": None}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": ""}, ""),
    ({"prompt": [""]}, ""),
    ({"prompt": [[]]}, "prompt[0]"),
    ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": ["a", 1]}, "prompt"),
    ({"prompt": ["a", [1]]}, "prompt"),
    ({"prompt": [-1]}, "prompt[0]"),
    ({"prompt": [[5], [-1]]}, "prompt[1][0]"),
    ({"prompt": [100_000]}, "prompt"),
    ({"prompt": [[5], [100_000]]}, "prompt[1]"),
    ({"prompt": [[5], [5] * 5000]}, "prompt[1]"),
    ({"prompt": {"a": 1}}, "prompt"),
    ({"prompt": [1.5]}, "prompt[0]"),
    ({"suffix": "x"}, "suffix"),
    ({"echo": True, "logprobs": 1}, "echo"),
    ({"logprobs": 21}, "logprobs"),
    ({"logprobs": True}, "logprobs"),
    ({"prompt": ["a"] * 65, "n": 2}, "n"),
    ({"max_tokens": 4096}, "max_tokens"),
]


@pytest.mark.parametrize(("change", "field"), BAD_TEXT, ids=lambda v: str(v)[:60])
async def test_a_bad_field_of_a_completion_is_named(
    client: Any, change: dict[str, Any], field: str
) -> None:
    response = await client.post(TEXT, json={"prompt": "hi", "max_tokens": 2, **change})
    if not field:  # the pretend model's prompt begins with a special token: never empty
        assert response.status_code == 200
        return
    assert assert_openai_error(response, 400)["param"] == field


async def test_a_missing_prompt_is_named(client: Any) -> None:
    error = assert_openai_error(await client.post(TEXT, json={}), 400)
    assert (error["param"], error["code"]) == ("prompt", "missing_required_parameter")


@pytest.mark.parametrize("path", [CHAT, TEXT, "/tokenize", "/detokenize"])
async def test_an_unknown_model_is_404(client: Any, path: str) -> None:
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
    client: Any, method: str, path: str, status: int
) -> None:
    response = await client.request(method, path)
    assert_openai_error(response, status)
    if status == 405:
        assert response.headers["allow"]


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_other_content_types_are_refused(client: Any, content_type: str) -> None:
    response = await client.post(CHAT, content=b"{}", headers={"content-type": content_type})
    assert_openai_error(response, 415)


async def test_json_with_a_charset_is_json(client: Any, chat: Any) -> None:
    response = await client.post(
        CHAT,
        content=json.dumps(chat()).encode(),
        headers={"content-type": "Application/JSON; charset=utf-8"},
    )
    assert response.status_code == 200


async def test_a_large_body_is_refused_by_its_declared_size(make_client: Any, chat: Any) -> None:
    client = make_client(max_body_bytes=1000)
    assert_openai_error(await client.post(CHAT, json=chat("x" * 1000)), 413)


async def test_a_large_body_of_undeclared_size_is_refused_too(make_client: Any) -> None:
    async def pieces() -> Any:
        for _ in range(100):
            yield b"x" * 100

    client = make_client(max_body_bytes=1000)
    response = await client.post(
        CHAT, content=pieces(), headers={"content-type": "application/json"}
    )
    assert_openai_error(response, 413)


async def test_a_body_that_trickles_in_is_given_up(make_client: Any) -> None:
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
    client: Any, chat: Any, backend: FakeBackend
) -> None:
    def refuse(*_: Any) -> None:
        raise InvalidRequest("top_k: too exotic", "top_k")

    backend.accept = refuse
    error = assert_openai_error(await client.post(CHAT, json=chat(stream=True)), 400)
    assert error["param"] == "top_k"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bug_is_a_500_that_tells_nothing(
    client: Any, chat: Any, backend: FakeBackend, stream: bool, caplog: Any
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


def nested(depth: int) -> Any:
    return json.loads("[" * depth + "]" * depth)


def calling(**call: Any) -> dict[str, Any]:
    return {"messages": [*HI, {"role": "assistant", "tool_calls": [call]}]}


@pytest.mark.parametrize(
    ("path", "change", "field"),
    [
        (CHAT, calling(a=nested(500)), "messages[1].tool_calls"),
        (CHAT, {"chat_template_kwargs": {"a": nested(100)}}, "chat_template_kwargs"),
        (CHAT, {"response_format": {"z": nested(100)}}, "response_format"),
        (CHAT, {"tools": [{"z": nested(100)}], "tool_choice": "none"}, "tools"),
        (TEXT, {"prompt": "x", "best_of": nested(100)}, "best_of"),
        ("/tokenize", calling(a=nested(500)), "messages[1].tool_calls"),
    ],
    ids=lambda v: str(v)[:40],
)
async def test_what_is_nested_too_deeply_is_named(
    client: Any, path: str, change: dict[str, Any], field: str
) -> None:
    body = {"messages": HI, **change} if path == CHAT else change
    error = assert_openai_error(await client.post(path, json=body), 400)
    assert (error["param"], error["code"]) == (field, "invalid_value")
    shallow = {"messages": HI, "chat_template_kwargs": {"a": nested(40)}, "zzz": nested(400)}
    assert (await client.post(CHAT, json=shallow)).status_code == 200


async def test_what_the_decoders_cant_hold_is_refused_by_name(
    client: Any, chat: Any, backend: FakeBackend
) -> None:
    small = WorkerLoad(num_kv_blocks=40, num_free_kv_blocks=40)
    for role in (Role.DECODE, Role.PREFILL):
        backend.put("small", role, load=small)  # 640 tokens
        for body, field in (
            (chat("x" * 700), "messages"),
            (chat("x" * 500, max_tokens=200), "max_tokens"),
            (chat("x" * 500, max_tokens=None, max_completion_tokens=200), "max_completion_tokens"),
        ):
            if role is Role.PREFILL and field != "messages":
                continue  # the prompt alone is computed there
            error = assert_openai_error(await client.post(CHAT, json=body), 400)
            assert (error["param"], error["code"]) == (field, "context_length_exceeded")
            assert error["message"].startswith(f"{field}: ")
        body = {"prompt": [65] * 700}
        assert assert_openai_error(await client.post(TEXT, json=body), 400)["param"] == "prompt"
        told = (await client.get("/v1/models")).json()["data"][0]["max_model_len"]
        assert told == (640 if role is Role.DECODE else 4096)
    response = await client.post(CHAT, json=chat("x" * 500, max_tokens=None))
    assert response.status_code == 200


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
    short_client: Any, path: str, body: dict[str, Any]
) -> None:
    body = {"messages": HI, "prompt": "x", "tokens": [1], **body}
    response = await short_client.post(path, json=body)
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert_openai_error(response, response.status_code)
