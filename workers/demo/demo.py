# ruff: noqa: INP001  # a script, on purpose in no package
"""The whole line at work: draw a picture, serve a model, ask about it, see who answered.

`make demo` runs it. DEMO_KEEP=1 leaves the service running until Ctrl-C; DEMO_SEED=7 draws another
picture. Not part of a package, so that it may use both the load generator and the workers.
"""

import base64
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from openai import OpenAI

from epidote_loadgen.pictures import ImageFormat, draw, encode, sample_scene
from epidote_loadgen.questions import Question, QuestionType, ask, describe
from epidote_workers.fleet_table import stage_lines

OUTPUT = Path("demo-output")
ASKED = (QuestionType.COUNT, QuestionType.COLOUR_AT, QuestionType.DESCRIBE)


def start_service() -> subprocess.Popen[str]:
    """`epidote serve` on a free port, in a session of its own.

    Ctrl-C then reaches this script alone, which ends the service as a user would.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "epidote_workers.cli", "serve", "--model", "demo", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until_ready(service: subprocess.Popen[str]) -> str:
    """Show what the service says until it names its URL."""
    assert service.stdout is not None
    for line in service.stdout:
        print(line, end="", flush=True)
        if found := re.search(r"http://\S+/v1", line):
            return found.group()
    raise SystemExit(service.wait() or 1)


def questions(seed: int) -> tuple[bytes, str, list[Question]]:
    """A picture file, what it shows, and questions whose answers are known."""
    rng = Random(seed)
    scene = sample_scene(rng, min_items=3, max_items=4)
    found = [ask(kind, [scene], rng) for kind in ASKED]
    picture = encode(draw(scene), ImageFormat.PNG)
    return picture, describe(scene), [question for question in found if question]


def put(client: OpenAI, model: str, picture: bytes, question: Question) -> None:
    """Ask, stream the answer, tell who did what in how many milliseconds."""
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    print(f"\nQ: {question.text}\nA: ", end="", flush=True)
    started_s = time.perf_counter()
    stream = client.chat.completions.create(
        model=model,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": url}},
                    {"type": "text", "text": question.text},
                ],
            }
        ],
        temperature=0,
        max_tokens=64,
        stream=True,
        extra_headers={"x-epidote-timings": "1"},
    )
    extension = None
    for chunk in stream:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
        extension = (chunk.model_extra or {}).get("epidote") or extension
    took_ms = (time.perf_counter() - started_s) * 1e3
    print(f"\n   (the picture says: {question.answer}; {took_ms:.0f} ms at the client)")
    if extension:
        print("\n".join(stage_lines(extension)))


def main() -> int:
    picture, contents, asked = questions(int(os.environ.get("DEMO_SEED", "3")))
    OUTPUT.mkdir(exist_ok=True)
    path = OUTPUT / "picture.png"
    path.write_bytes(picture)
    service = start_service()
    try:
        url = wait_until_ready(service)
        print(f"picture: {path.resolve()}\n   (shows: {contents})")
        client = OpenAI(base_url=url, api_key="none", timeout=120)
        model = client.models.list().data[0].id
        for question in asked:
            put(client, model, picture, question)
        if os.environ.get("DEMO_KEEP", "") not in ("", "0"):
            base = url.removesuffix("/v1")
            print(f"\nLeft running at {url} until Ctrl-C. In another terminal:")
            print(f"  epidote ask '{asked[0].text}' --image {path} --url {base}")
            print(f"  epidote status --watch --url {base}")
            service.wait()
        else:
            print("\nStopping; `make demo DEMO_KEEP=1` leaves it running.")
    except KeyboardInterrupt:
        pass
    finally:
        if service.poll() is None:
            service.send_signal(signal.SIGINT)
            service.wait(60)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
