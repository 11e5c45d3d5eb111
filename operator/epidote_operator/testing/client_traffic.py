"""This file is about clients that ask all the time: not one of their requests may fail."""

import asyncio
import base64
import contextlib
import io
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import httpx
from PIL import Image

PAUSE_S = 0.2  # between two requests


@dataclass
class Tally:
    """Requests so far; `failures` say what went wrong."""

    num_ok: int = 0
    failures: list[str] = field(default_factory=list)


@contextlib.asynccontextmanager
async def traffic(
    url: Callable[[], str], *, model: str = "fake-vl", pictures: bool = True
) -> AsyncIterator[Tally]:
    """Ask until the block ends, every second time with a picture. `url` is read anew."""
    tally = Tally()
    task = asyncio.create_task(_ask_on(url, model, pictures, tally))
    try:
        yield tally
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _ask_on(url: Callable[[], str], model: str, pictures: bool, tally: Tally) -> None:
    async with httpx.AsyncClient(timeout=60.0, trust_env=False) as http:
        number = 0
        while True:
            number += 1
            try:
                with_picture = pictures and number % 2 == 0
                body = {**_body(number, with_picture=with_picture), "model": model}
                asked = url()
                answer = await http.post(f"{asked}/v1/chat/completions", json=body)
                if answer.is_success:
                    tally.num_ok += 1
                else:
                    tally.failures.append(f"{answer.status_code} {answer.text[:300]}")
            except httpx.HTTPError as error:
                tally.failures.append(f"{asked}: {error!r}")
            await asyncio.sleep(PAUSE_S)


def _body(number: int, *, with_picture: bool) -> dict[str, object]:
    content: list[dict[str, object]] = [{"type": "text", "text": f"question {number}"}]
    if with_picture:
        content.append({"type": "image_url", "image_url": {"url": _picture(number)}})
    return {
        "max_tokens": 12,
        "messages": [{"role": "user", "content": content}],
    }


def _picture(number: int) -> str:
    """A picture that no cache has seen."""
    colour = (number % 256, number // 256 % 256, 7)
    data = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(data, "PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
