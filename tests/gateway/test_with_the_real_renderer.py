"""The gateway over the demo model's own tokenizer, template and picture processor."""

from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epidote_core.roles import Role
from epidote_engine.processing import PromptProcessor
from epidote_gateway.app import create_app
from epidote_gateway.backend import PromptRenderer
from epidote_gateway.fakes import FakeBackend
from epidote_gateway.settings import GatewaySettings

MODEL = Path(__file__).parents[2] / "workers" / "epidote_workers" / "demo_model"
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def renderer() -> PromptRenderer:
    return PromptProcessor.from_model(str(MODEL))


@pytest.fixture
async def client(renderer: PromptRenderer, backend: FakeBackend) -> Any:
    app = create_app(backend, renderer, GatewaySettings(default_max_tokens=4), rng=Random(1))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as made:
        yield made


async def test_pictures_become_placeholders_in_order(
    client: Any, chat: Any, backend: FakeBackend, picture: Any, data_url: Any
) -> None:
    urls = [data_url(picture((60 + 30 * n, 50), seed=n)) for n in range(3)]
    response = await client.post(CHAT, json=chat("compare", *urls, model=None))
    assert response.status_code == 200, response.text
    request, route = backend.requests[0]
    assert [span.key for span in request.media] == [key for key, _ in route.encode]
    assert [span.offset for span in request.media] == sorted(s.offset for s in request.media)
    for span in request.media:
        run = request.prompt_token_ids[span.offset : span.offset + span.num_tokens]
        assert len(set(run)) == 1
    assert {backend.fleet[worker].role for _, worker in route.encode} == {Role.ENCODE}


async def test_a_tiny_and_a_long_picture_are_told_apart(
    client: Any, chat: Any, picture: Any, data_url: Any
) -> None:
    tiny = await client.post(CHAT, json=chat("x", data_url(picture((1, 1))), model=None))
    assert tiny.status_code in (200, 400)
    long = await client.post(CHAT, json=chat("x", data_url(picture((900, 2))), model=None))
    assert long.status_code == 400
    assert long.json()["error"]["param"] == "messages[0].content[1].image_url.url"


async def test_a_tokenised_text_comes_back(client: Any) -> None:
    tokens = (await client.post("/tokenize", json={"prompt": "3 red circles, ü 漢"})).json()
    back = await client.post("/detokenize", json={"tokens": tokens["tokens"]})
    assert back.json() == {"prompt": "3 red circles, ü 漢"}


@pytest.mark.parametrize("path", [CHAT, "/tokenize"])
async def test_arguments_nested_without_end_are_named(client: Any, path: str) -> None:
    function = {"name": "f", "arguments": "[" * 100_000 + "]" * 100_000}
    call = {"id": "1", "type": "function", "function": function}
    body = {"messages": [{"role": "assistant", "tool_calls": [call]}]}
    response = await client.post(path, json=body)
    assert response.status_code == 400, response.text
    param = response.json()["error"]["param"]
    assert param == "messages[0].tool_calls[0].function.arguments"


@pytest.mark.parametrize(
    ("path", "field", "body"),
    [
        (CHAT, "messages", {"messages": [{"role": "user", "content": "a b " * 100_000}]}),
        ("/v1/completions", "prompt", {"prompt": "a b " * 100_000}),
        ("/v1/completions", "prompt[1]", {"prompt": ["x", "a b " * 100_000]}),
        ("/tokenize", "prompt", {"prompt": "a b " * 100_000}),
    ],
)
async def test_a_prompt_longer_than_any_is_named(
    client: Any, path: str, field: str, body: dict[str, Any]
) -> None:
    response = await client.post(path, json=body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (field, "context_length_exceeded")
    assert error["message"].startswith(f"{field}: ")


texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["<|im_start|>", "<|image_pad|>", "{{ x }}", "{% for %}", "\x00", "\u2028"]),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)
text_parts = st.fixed_dictionaries({"type": st.just("text"), "text": texts})
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "developer"])},
    optional={
        "content": texts
        | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": texts})),
        "name": texts,
        "tool_calls": st.lists(st.dictionaries(texts, values, max_size=2), max_size=2),
        "tool_call_id": texts,
    },
)


@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    conversation=st.lists(messages, max_size=4),
    template_kwargs=st.none() | st.dictionaries(texts, values, max_size=2),
)
async def test_no_conversation_makes_a_server_error(
    client: Any, conversation: list[Any], template_kwargs: Any
) -> None:
    body = {"messages": conversation, "chat_template_kwargs": template_kwargs, "logprobs": True}
    for path, more in ((CHAT, {}), ("/tokenize", {"return_token_strs": True})):
        response = await client.post(path, json={**body, **more})
        assert response.status_code in (200, 400), response.text
