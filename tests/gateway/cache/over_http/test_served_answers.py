"""The cache as clients see it: what is served again, and what they may say about it."""

import base64
import json
from io import BytesIO
from random import Random
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI
from PIL import Image

A, B = "what colour is the car in this picture", "in this picture what colour is the car"
HEADER = "x-epidote-cache"


def picture(seed: int = 0) -> Image.Image:
    return Image.frombytes("RGB", (48, 32), Random(seed).randbytes(48 * 32 * 3))


def file_url(image: Image.Image, format: str = "PNG") -> str:
    file = BytesIO()
    image.save(file, format, **({"lossless": True} if format == "WEBP" else {}))
    data = base64.b64encode(file.getvalue()).decode()
    return f"data:image/{format.lower()};base64,{data}"


async def test_a_paraphrase_about_the_same_picture_hits_about_another_one_it_misses(
    gateway: Any, openai: AsyncOpenAI, ask: Any, about: Any
) -> None:
    first, header = await ask(openai, about(A, file_url(picture())))
    assert header.startswith("miss; why=nothing-near")
    second, header = await ask(openai, about(B, file_url(picture())))
    assert header.startswith("hit; kind=semantic; category=default; similarity=")
    assert second == first
    other, header = await ask(openai, about(B, file_url(picture(seed=1))))
    assert header.startswith("miss")
    assert other != first
    assert gateway.num_asked == 2


@pytest.mark.parametrize("format", ["BMP", "WEBP"])
async def test_the_same_picture_in_another_lossless_file_hits(
    gateway: Any, openai: AsyncOpenAI, format: str, ask: Any, about: Any
) -> None:
    first, _ = await ask(openai, about(A, file_url(picture(), "PNG")))
    again, header = await ask(openai, about(A, file_url(picture(), format)))
    assert header.startswith("hit; kind=exact")
    assert again == first


async def test_one_changed_pixel_is_another_picture(
    gateway: Any, openai: AsyncOpenAI, ask: Any, about: Any
) -> None:
    await ask(openai, about(A, file_url(picture())))
    changed = picture()
    red, green, blue = changed.getpixel((7, 5))  # type: ignore[misc]
    changed.putpixel((7, 5), (red ^ 1, green, blue))
    _, header = await ask(openai, about(A, file_url(changed)))
    assert header.startswith("miss")
    assert gateway.num_asked == 2


async def test_the_order_of_pictures_matters(
    gateway: Any, openai: AsyncOpenAI, ask: Any, about: Any
) -> None:
    one, two = file_url(picture(1)), file_url(picture(2))
    await ask(openai, about(A, one, two))
    assert (await ask(openai, about(A, two, one)))[1].startswith("miss")
    assert (await ask(openai, about(A, one)))[1].startswith("miss")
    assert (await ask(openai, about(A, one, two)))[1].startswith("hit")


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True)])
async def test_streamed_and_whole_answers_serve_each_other(
    gateway: Any, openai: AsyncOpenAI, first: bool, second: bool, ask: Any, about: Any
) -> None:
    options: Any = {"stream_options": {"include_usage": True}}
    one, _ = await ask(openai, about(A), stream=first, **(options if first else {}))
    other, header = await ask(openai, about(A), stream=second, **(options if second else {}))
    assert header.startswith("hit; kind=exact")
    assert one == other
    assert gateway.num_asked == 1


async def test_a_hit_streams_the_very_events_of_its_original(
    gateway: Any, http: httpx.AsyncClient
) -> None:
    body = {
        "model": "fake-vl",
        "messages": [{"role": "user", "content": A}],
        "max_tokens": 12,
        "temperature": 0,
        "stream": True,
        "logprobs": True,
        "top_logprobs": 2,
        "stream_options": {"include_usage": True},
    }

    async def events() -> list[Any]:
        text = (await http.post("/v1/chat/completions", json=body)).text
        lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        assert lines[-1] == "[DONE]"
        found = [json.loads(line) for line in lines[:-1]]
        for event in found:
            del event["id"], event["created"]
        return found

    assert await events() == await events()
    assert gateway.num_asked == 1


async def test_completions_of_several_prompts_tell_each_ones_fate(start: Any) -> None:
    gateway = await start(policy="requests: {truncated: true}")

    async def told(*prompts: str) -> str:
        body = {"model": "fake-vl", "prompt": list(prompts), "max_tokens": 5, "temperature": 0}
        async with httpx.AsyncClient(base_url=gateway.url, timeout=120) as http:
            response = await http.post("/v1/completions", json=body)
        assert len(response.json()["choices"]) == len(prompts)
        header: str = response.headers[HEADER]
        return header

    await told("one")
    header = await told("one", "two")
    first, second = header.split(", ")
    assert first.startswith("hit; kind=exact")
    assert second.startswith("miss")


async def test_request_controls_come_by_header_and_by_body(
    gateway: Any, openai: AsyncOpenAI, ask: Any, about: Any
) -> None:
    await ask(openai, about(A))
    for more in (
        {"extra_headers": {"cache-control": "no-cache"}},
        {"extra_body": {"cache": {"no-cache": True}}},
    ):
        assert (await ask(openai, about(A), **more))[1].startswith("miss; why=no-cache")
    for more in (
        {"extra_headers": {"cache-control": "no-store"}},
        {"extra_body": {"cache": {"no-store": True}}},
    ):
        assert (await ask(openai, about(A), **more))[1] == "bypass; why=no-store"
    named = {"extra_headers": {"x-epidote-category": "private"}}
    assert (await ask(openai, about("new"), **named))[1].startswith("bypass; why=category-disabled")
    assert (await ask(openai, about("my salary")))[1].startswith("bypass; why=category-disabled")
    assert (await ask(openai, about(A), user="ann"))[1] == "bypass; why=personalized"
    assert (await ask(openai, about(A), temperature=0.5))[1] == "bypass; why=temperature"


async def test_no_store_counts_on_whichever_line_of_the_header(http: httpx.AsyncClient) -> None:
    body = {"messages": [{"role": "user", "content": A}], "temperature": 0}
    for values in (("no-store", "max-age=9"), ("max-age=9", "no-store"), ("no-store;max-age=1",)):
        headers = [("cache-control", value) for value in values]
        response = await http.post("/v1/chat/completions", json=body, headers=headers)
        assert response.headers[HEADER] == "bypass; why=no-store", values


@pytest.mark.parametrize(
    "cache",
    [
        {"max-age": -1},
        {"no-cache": "yes"},
        {"category": ""},
        {"no_store": True},  # with a hyphen it would be known
        {"ttl": 60},
        5,
    ],
)
async def test_a_bad_cache_field_is_named(http: httpx.AsyncClient, cache: Any) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "cache": cache}
    response = await http.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("cache")
