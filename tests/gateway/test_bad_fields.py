"""Fields that can't be honoured: refused by their path; and what looks odd, but is accepted."""

import json
from typing import Any

import pytest

from epidote_core.roles import Role
from epidote_core.worker_view import WorkerLoad
from epidote_gateway.fakes import FakeBackend

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
HI = [{"role": "user", "content": "hi"}]


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
    client: Any,
    chat: Any,
    change: dict[str, Any],
    field: str,
    code: str,
    stream: bool,
    assert_openai_error: Any,
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
    client: Any, change: dict[str, Any], field: str, assert_openai_error: Any
) -> None:
    response = await client.post(TEXT, json={"prompt": "hi", "max_tokens": 2, **change})
    if not field:  # the pretend model's prompt begins with a special token: never empty
        assert response.status_code == 200
        return
    assert assert_openai_error(response, 400)["param"] == field


async def test_a_missing_prompt_is_named(client: Any, assert_openai_error: Any) -> None:
    error = assert_openai_error(await client.post(TEXT, json={}), 400)
    assert (error["param"], error["code"]) == ("prompt", "missing_required_parameter")


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
    client: Any, path: str, change: dict[str, Any], field: str, assert_openai_error: Any
) -> None:
    body = {"messages": HI, **change} if path == CHAT else change
    error = assert_openai_error(await client.post(path, json=body), 400)
    assert (error["param"], error["code"]) == (field, "invalid_value")
    shallow = {"messages": HI, "chat_template_kwargs": {"a": nested(40)}, "zzz": nested(400)}
    assert (await client.post(CHAT, json=shallow)).status_code == 200


async def test_what_the_decoders_cant_hold_is_refused_by_name(
    client: Any, chat: Any, backend: FakeBackend, assert_openai_error: Any
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
