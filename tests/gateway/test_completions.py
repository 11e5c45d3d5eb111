"""Text completions, /tokenize and /detokenize."""

import json
from typing import Any

import pytest
from openai import AsyncOpenAI

from epidote_core.generation import TokenLogprob
from epidote_gateway.fakes import BOS, FakeBackend, FakeRenderer, fake_tokens
from epidote_gateway.logprobs import LOWEST, TokenTexts, chat_logprobs

TEXT = "/v1/completions"


async def test_texts_and_ids_mean_the_same(openai: AsyncOpenAI) -> None:
    answers = [
        await openai.completions.create(
            model="fake-vl", prompt=prompt, temperature=0, max_tokens=20
        )
        for prompt in ("hi", ["hi"], [BOS, 104, 105], [[BOS, 104, 105]])
    ]
    assert len({answer.choices[0].text for answer in answers}) == 1
    assert answers[0].object == "text_completion"


@pytest.mark.parametrize("stream", [False, True])
async def test_several_prompts_have_consecutive_choices(
    openai: AsyncOpenAI, backend: FakeBackend, stream: bool
) -> None:
    arguments: dict[str, Any] = {
        "model": "fake-vl", "prompt": ["a", "b", "c"], "n": 2, "seed": 1, "max_tokens": 20
    }  # fmt: skip
    whole = await openai.completions.create(**arguments)
    texts = [choice.text for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == list(range(6))
    assert len(set(texts)) == 6
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (6, 120)
    for number, (request, _) in enumerate(sorted(backend.requests, key=lambda r: r[0].request_id)):
        wanted = bytes(fake_tokens(request, 1)).decode(errors="replace")
        assert texts[2 * number + 1] == wanted
    if stream:
        streamed = [""] * 6
        usage = None
        events = await openai.completions.create(
            **arguments, stream=True, stream_options={"include_usage": True}
        )
        async for event in events:
            usage = event.usage
            for choice in event.choices:
                streamed[choice.index] += choice.text
        assert streamed == texts
        assert usage == whole.usage


async def test_without_a_limit_sixteen_tokens_follow(openai: AsyncOpenAI) -> None:
    answer = await openai.completions.create(model="fake-vl", prompt="hi")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


@pytest.mark.parametrize("stream", [False, True])
async def test_an_echo_repeats_the_prompt_first(client: Any, stream: bool) -> None:
    for prompt, shown in (("hi there", "hi there"), ([104, 105], "hi")):
        body = {"prompt": prompt, "max_tokens": 5, "temperature": 0, "stream": stream}
        plain, echoed = [
            (await client.post(TEXT, json={**body, "echo": echo})).text for echo in (False, True)
        ]
        assert text_of(echoed) == shown + text_of(plain)


def text_of(answer: str) -> str:
    if answer.startswith("{"):
        return str(json.loads(answer)["choices"][0]["text"])
    events = [json.loads(e[6:]) for e in answer.split("\n\n") if e and "[DONE]" not in e]
    return "".join(event["choices"][0]["text"] for event in events)


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_are_arrays_with_running_offsets(openai: AsyncOpenAI, stream: bool) -> None:
    arguments: dict[str, Any] = {
        "model": "fake-vl", "prompt": "x", "max_tokens": 9, "temperature": 0, "logprobs": 1
    }  # fmt: skip
    tokens: list[str] = []
    offsets: list[int] = []
    answers: list[Any] = []
    if stream:
        answers = [a async for a in await openai.completions.create(**arguments, stream=True)]
    else:
        answers = [await openai.completions.create(**arguments)]
    for answer in answers:
        found = answer.choices[0].logprobs
        tokens += found.tokens
        offsets += found.text_offset
        assert len(found.tokens) == len(found.token_logprobs) == len(found.top_logprobs)
    assert len(tokens) == 9
    assert offsets == [len("".join(tokens[:n])) for n in range(9)]


async def test_impossible_logprobs_stay_json() -> None:
    texts = TokenTexts(FakeRenderer())
    item = TokenLogprob(token_id=65, logprob=float("-inf"), top=((66, float("nan")),))
    found = chat_logprobs([item], texts).content[0]
    assert (found.logprob, found.top_logprobs[0].logprob) == (LOWEST, LOWEST)


async def test_text_is_tokenised_and_back(client: Any) -> None:
    answer = (
        await client.post("/tokenize", json={"prompt": "hé", "return_token_strs": True})
    ).json()
    assert answer["tokens"] == [BOS, 104, 195, 169]
    assert answer["count"] == 4
    assert answer["max_model_len"] == 4096
    assert answer["token_strs"][1] == "h"
    without = {"prompt": "hé", "add_special_tokens": False}
    tokens = (await client.post("/tokenize", json=without)).json()["tokens"]
    back = await client.post("/detokenize", json={"tokens": tokens})
    assert back.json() == {"prompt": "hé"}


async def test_a_conversation_is_tokenised_as_a_chat_would_be(
    client: Any, backend: FakeBackend
) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    tokens = (await client.post("/tokenize", json={"messages": messages})).json()["tokens"]
    await client.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 1})
    assert tuple(tokens) == backend.requests[0][0].prompt_token_ids
    shorter = {"messages": messages, "add_generation_prompt": False}
    assert (await client.post("/tokenize", json=shorter)).json()["count"] < len(tokens)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, "prompt"),
        ("/tokenize", {"messages": [{"role": "user"}]}, "messages[0].content"),
        (
            "/tokenize",
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": "data:"}]}
                ]
            },
            "messages[0].content[0].image_url",
        ),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [5, 9999]}, "tokens[1]"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": "abc"}, "tokens"),
    ],
)
async def test_a_bad_field_is_named(
    client: Any, path: str, body: dict[str, Any], field: str
) -> None:
    response = await client.post(path, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == field
