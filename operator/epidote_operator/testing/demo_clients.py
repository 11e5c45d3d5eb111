"""This file is about the clients of the cluster demo: rates that a story changes, all counted.

Open loop: requests are sent when they are due, whatever became of those before.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx

PICTURES = Path(__file__).resolve().parents[3] / "workers/demo/pictures.py"
IDLE_S = 0.1
TIMEOUT_S = 120.0
TEXT_TOKENS, ANSWER_TOKENS = 8, 8


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture (a data URL), a question about it, and the one right answer."""

    url: str
    question: str
    answer: str

    def messages(self) -> list[dict[str, Any]]:
        """As the OpenAI API takes them."""
        content = [
            {"type": "image_url", "image_url": {"url": self.url}},
            {"type": "text", "text": self.question},
        ]
        return [{"role": "user", "content": content}]

    def is_answered_by(self, text: str) -> bool:
        return text.strip().rstrip(".").lower() == self.answer


def draw_pictures(count: int, seed: int = 3) -> list[Picture]:
    """Freshly drawn ones, by the script that knows how; the same seed draws the same."""
    done = subprocess.run(
        [sys.executable, PICTURES, str(count), str(seed)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        Picture(
            url=f"data:image/png;base64,{item['picture']}",
            question=item["question"],
            answer=item["answer"],
        )
        for item in found
    ]


@dataclass
class Load:
    """Requests a second of each kind, and what became of them so far."""

    url: str  # of the gateway, without /v1
    model: str
    pictures: Sequence[Picture]
    text_rps: float = 0.0
    image_rps: float = 0.0
    num_ok: int = 0
    num_right: int = 0  # of the answers about pictures
    num_pictures: int = 0
    failures: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        """Send until the block ends; then wait for what is under way."""
        underway: set[asyncio.Task[None]] = set()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, limits=limits) as http:
            senders = [
                asyncio.create_task(self._send(http, self._texts(), "text_rps", underway)),
                asyncio.create_task(self._send(http, self._looks(), "image_rps", underway)),
            ]
            try:
                yield self
            finally:
                for sender in senders:
                    sender.cancel()
                await asyncio.gather(*senders, *underway, return_exceptions=True)

    async def _send(
        self,
        http: httpx.AsyncClient,
        bodies: Iterator[tuple[dict[str, Any], Picture | None]],
        rate: str,
        underway: set[asyncio.Task[None]],
    ) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            rps = getattr(self, rate)
            if rps <= 0.0:
                await asyncio.sleep(IDLE_S)
                due_s = loop.time()
                continue
            task = asyncio.create_task(self._ask(http, *next(bodies)))
            underway.add(task)
            task.add_done_callback(underway.discard)
            due_s += 1.0 / rps
            await asyncio.sleep(max(0.0, due_s - loop.time()))

    async def _ask(
        self, http: httpx.AsyncClient, body: dict[str, Any], picture: Picture | None
    ) -> None:
        try:
            answer = await http.post(f"{self.url}/v1/chat/completions", json=body)
        except httpx.HTTPError as error:
            self.failures.append(repr(error))
            return
        if not answer.is_success:
            self.failures.append(f"{answer.status_code} {answer.text[:300]}")
            return
        self.num_ok += 1
        if picture is not None:
            text = answer.json()["choices"][0]["message"]["content"]
            self.num_pictures += 1
            self.num_right += picture.is_answered_by(text)

    def _texts(self) -> Iterator[tuple[dict[str, Any], None]]:
        number = 0
        while True:
            number += 1
            question = f"What is {number % 40} plus {number % 7}?"
            yield (
                {
                    "model": self.model,
                    "messages": [{"role": "user", "content": question}],
                    "max_tokens": TEXT_TOKENS,
                    "ignore_eos": True,
                    "temperature": 0,
                },
                None,
            )

    def _looks(self) -> Iterator[tuple[dict[str, Any], Picture]]:
        for picture in cycle(self.pictures):
            yield (
                {
                    "model": self.model,
                    "messages": picture.messages(),
                    "max_tokens": ANSWER_TOKENS,
                    "temperature": 0,
                },
                picture,
            )
