"""Chat completions as OpenAI's own client sees them, over a real port."""

import json
from typing import Any

import pytest
from openai import AsyncOpenAI

from epidote_core.generation import Choice, GenerateRequest, Route
from epidote_core.sampling import SamplingParams
from epidote_gateway.fakes import FakeBackend, FakeRenderer, fake_tokens

HI = [{"role": "user", "content": "hi"}]


def expected(text: str = "hi", max_tokens: int = 24) -> str:
    """What the pretend model says greedily."""
    prompt = FakeRenderer().render_chat([{"role": "user", "content": text}], media=())
    request = GenerateRequest(
        request_id="x",
        prompt_token_ids=prompt.token_ids,
        sampling=SamplingParams(max_tokens=max_tokens, temperature=0),
    )
    return bytes(fake_tokens(request, 0)).decode(errors="replace")


async def test_an_answer_is_what_the_model_says(openai: AsyncOpenAI) -> None:
    answer = await openai.chat.completions.create(
        model="fake-vl", messages=HI, temperature=0, max_tokens=24
    )
    assert answer.choices[0].message.content == expected()
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "length"
    assert answer.object == "chat.completion"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24


async def test_a_stream_gives_the_same_text_and_ends_with_usage(openai: AsyncOpenAI) -> None:
    stream = await openai.chat.completions.create(
        model="fake-vl",
        messages=HI,
        temperature=0,
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == expected()
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert all(c.usage is None for c in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 24
    assert len({c.id for c in chunks}) == 1


async def test_without_include_usage_no_usage_is_sent(openai: AsyncOpenAI) -> None:
    stream = await openai.chat.completions.create(
        model="fake-vl", messages=HI, max_tokens=3, stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


async def test_continuous_usage_counts_up(openai: AsyncOpenAI) -> None:
    stream = await openai.chat.completions.create(
        model="fake-vl",
        messages=HI,
        max_tokens=30,
        stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
    )
    counts = [c.usage.completion_tokens async for c in stream if c.usage]
    assert counts == sorted(counts)
    assert counts[-1] == 30


@pytest.mark.parametrize("stream", [False, True])
async def test_choices_are_told_apart(openai: AsyncOpenAI, stream: bool) -> None:
    arguments: dict[str, Any] = {
        "model": "fake-vl", "messages": HI, "seed": 7, "n": 4, "max_tokens": 30
    }  # fmt: skip
    whole = await openai.chat.completions.create(**arguments)
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    assert len(set(texts)) == 4
    if stream:
        streamed = ["", "", "", ""]
        async for chunk in await openai.chat.completions.create(**arguments, stream=True):
            for choice in chunk.choices:
                streamed[choice.index] += choice.delta.content or ""
        assert streamed == texts


async def test_a_seed_repeats_and_its_absence_does_not(openai: AsyncOpenAI) -> None:
    async def ask(**more: Any) -> Any:
        answer = await openai.chat.completions.create(
            model="fake-vl", messages=HI, max_tokens=30, **more
        )
        return answer.choices[0].message.content

    assert await ask(seed=3) == await ask(seed=3)
    assert await ask(seed=3) != await ask(seed=4)
    assert await ask() != await ask()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("as_list", [False, True])
async def test_a_stop_string_ends_and_never_shows(
    openai: AsyncOpenAI, stream: bool, as_list: bool
) -> None:
    text = expected(max_tokens=64)
    stop = text[12:15]
    arguments: dict[str, Any] = {
        "model": "fake-vl",
        "messages": HI,
        "temperature": 0,
        "max_tokens": 64,
        "stop": [stop] if as_list else stop,
    }
    if stream:
        found, reason = "", None
        async for chunk in await openai.chat.completions.create(**arguments, stream=True):
            found += chunk.choices[0].delta.content or ""
            reason = chunk.choices[0].finish_reason
    else:
        answer = await openai.chat.completions.create(**arguments)
        found = answer.choices[0].message.content or ""
        reason = answer.choices[0].finish_reason
    assert found == text[: text.index(stop)]
    assert reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_have_a_token_each(openai: AsyncOpenAI, stream: bool) -> None:
    arguments: dict[str, Any] = {
        "model": "fake-vl", "messages": HI, "temperature": 0, "max_tokens": 12,
        "logprobs": True, "top_logprobs": 2,
    }  # fmt: skip
    entries: list[Any] = []
    if stream:
        async for chunk in await openai.chat.completions.create(**arguments, stream=True):
            logprobs = chunk.choices[0].logprobs
            entries += (logprobs.content or []) if logprobs else []
    else:
        answer = await openai.chat.completions.create(**arguments)
        assert answer.choices[0].logprobs is not None
        entries = answer.choices[0].logprobs.content or []
    assert len(entries) == 12
    assert bytes(byte for entry in entries for byte in entry.bytes).decode(
        errors="replace"
    ) == expected(max_tokens=12)
    assert all(len(entry.top_logprobs) == 2 for entry in entries)
    assert entries[0].top_logprobs[0].logprob == -0.5


async def test_pictures_are_spread_over_encoders(
    openai: AsyncOpenAI, backend: FakeBackend, picture: Any, data_url: Any, chat: Any
) -> None:
    body = chat("compare", *(data_url(picture(seed=seed)) for seed in range(4)))
    await openai.chat.completions.create(**body)
    workers = [worker for worker, _, _ in backend.encoded]
    assert sorted(workers) == ["encode-0", "encode-0", "encode-1", "encode-1"]
    request, route = backend.requests[0]
    assert [span.key for span in request.media] == [key for key, _ in route.encode]
    assert all(span.num_tokens == 6 for span in request.media)


async def test_a_picture_seen_before_goes_to_the_encoder_that_has_it(
    openai: AsyncOpenAI, backend: FakeBackend, picture: Any, data_url: Any, chat: Any
) -> None:
    for _ in range(5):
        await openai.chat.completions.create(**chat("again", data_url(picture())))
    assert len({worker for worker, _, _ in backend.encoded}) == 1


async def test_one_picture_twice_is_encoded_once(
    openai: AsyncOpenAI, backend: FakeBackend, picture: Any, data_url: Any, chat: Any
) -> None:
    url = data_url(picture())
    await openai.chat.completions.create(**chat("twice", url, url))
    assert len(backend.encoded) == 1
    assert len(backend.requests[0][0].media) == 2


async def test_every_sampling_field_reaches_the_engine(
    openai: AsyncOpenAI, backend: FakeBackend
) -> None:
    await openai.chat.completions.create(
        model="fake-vl",
        messages=HI,
        max_completion_tokens=9,
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        presence_penalty=0.1,
        frequency_penalty=-0.2,
        logit_bias={"65": -100},
        seed=-5,
        stop=["\x01", "\x02"],
        user="somebody",
        extra_body={
            "top_k": -1,
            "min_p": 0.05,
            "repetition_penalty": 1.1,
            "stop_token_ids": [3],
            "include_stop_str_in_output": True,
            "ignore_eos": True,
            "min_tokens": 2,
            "priority": 4,
            "cache_salt": "mine",
            "nobody_knows_this": 1,
        },
    )
    request = backend.requests[0][0]
    assert request.sampling == SamplingParams(
        max_tokens=9,
        temperature=0.5,
        top_k=0,
        top_p=0.9,
        min_p=0.05,
        presence_penalty=0.1,
        frequency_penalty=-0.2,
        repetition_penalty=1.1,
        seed=-5,
        stop=("\x01", "\x02"),
        stop_token_ids=(3,),
        include_stop_str_in_output=True,
        ignore_eos=True,
        min_tokens=2,
        logit_bias=((65, -100.0),),
    )
    assert request.priority == 4
    assert request.cache_salt == "\nmine"
    assert request.choices == (Choice(index=0),)


async def test_without_a_limit_the_answer_may_fill_the_model(
    client: Any, backend: FakeBackend
) -> None:
    backend.tokens_per_chunk = 512
    answer = (await client.post("/v1/chat/completions", json={"messages": HI})).json()
    assert answer["usage"]["total_tokens"] == 4096


@pytest.mark.parametrize("stream", [False, True])
async def test_timings_are_told_who_asks(client: Any, chat: Any, stream: bool) -> None:
    for usage in (False, True):
        options = {"stream_options": {"include_usage": usage}} if stream else {}
        response = await client.post(
            "/v1/chat/completions",
            json=chat(stream=stream, **options),
            headers={"x-epidote-timings": "1"},
        )
        if stream:
            events = [e.removeprefix("data: ") for e in response.text.split("\n\n") if e]
            with_timings = [json.loads(e) for e in events[:-1] if '"epidote":' in e]
            assert len(with_timings) == 1
            assert json.loads(events[-2]) == with_timings[0]
            found = with_timings[0]["epidote"]
        else:
            found = response.json()["epidote"]
        assert [stage["stage"] for stage in found["stages"]] == ["prefill", "decode"]
        assert found["stages"][0]["busy_ms"] == 3.0
        assert found["route"]["prefill"].startswith("prefill-")
        assert found["num_resumes"] == 0
    plain = await client.post("/v1/chat/completions", json=chat(stream=stream))
    assert "epidote" not in plain.text


@pytest.mark.parametrize("stream", [False, True])
async def test_token_ids_are_returned_if_asked_for(
    client: Any, chat: Any, backend: FakeBackend, stream: bool
) -> None:
    response = await client.post(
        "/v1/chat/completions",
        json=chat(stream=stream, temperature=0, return_token_ids=True),
    )
    request, _ = backend.requests[0]
    wanted = fake_tokens(request, 0)
    if stream:
        events = [json.loads(e[6:]) for e in response.text.split("\n\n") if e and "[DONE]" not in e]
        assert events[0]["prompt_token_ids"] == list(request.prompt_token_ids)
        assert [t for e in events[1:] for t in e["choices"][0]["token_ids"]] == wanted
    else:
        answer = response.json()
        assert answer["prompt_token_ids"] == list(request.prompt_token_ids)
        assert answer["choices"][0]["token_ids"] == wanted


async def test_a_developer_is_a_system_and_tool_messages_pass(
    client: Any, backend: FakeBackend
) -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "hi", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]},
        {"role": "tool", "content": "42", "tool_call_id": "1"},
    ]
    response = await client.post(
        "/v1/chat/completions", json={"messages": messages, "max_tokens": 2}
    )
    assert response.status_code == 200
    prompt = backend.requests[0][0].prompt_token_ids
    assert bytes(t for t in prompt if t < 256).startswith(b"system: be brief\nuser: hi")


async def test_another_name_of_the_model_is_answered_under_it(make_client: Any, chat: Any) -> None:
    client = make_client(served_model_names=("gpt-4o",))
    response = await client.post("/v1/chat/completions", json=chat(model="gpt-4o"))
    assert response.json()["model"] == "gpt-4o"
    models = (await client.get("/v1/models")).json()["data"]
    assert [model["id"] for model in models] == ["fake-vl", "gpt-4o"]


async def test_a_backend_route_and_request_are_plain_values(
    client: Any, chat: Any, backend: FakeBackend
) -> None:
    await client.post("/v1/chat/completions", json=chat())
    request, route = backend.requests[0]
    assert isinstance(request, GenerateRequest)
    assert isinstance(route, Route)
