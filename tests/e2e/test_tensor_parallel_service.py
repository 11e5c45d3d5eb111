"""`epidote serve --tensor-parallel-size 2`: the answers are the whole model's."""

import base64
import time
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from epidote_core.generation import GenerateRequest, MediaPixels
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine
from epidote_engine.in_process import serve
from epidote_engine.processing import PromptProcessor
from epidote_engine.settings import EngineConfig
from epidote_loadgen.pictures import ImageFormat, draw, encode, sample_scene
from epidote_workers.process_traces import command_line
from epidote_workers.process_tree import descendants, is_running
from epidote_workers.service_process import serving

pytest.importorskip("ray")

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE_S = 240.0
TOKENS = 24
PICTURE = draw(sample_scene(Random(3)))
QUESTIONS = (("What is 2 + 2?", False), ("How many shapes are there?", True))


def test_a_service_over_two_ranks_says_what_the_whole_model_says(tmp_path: Path) -> None:
    flags = ["--model", "demo", "--roles", "all=1", "--tensor-parallel-size", "2"]
    flags += ["--device", "cpu", "--dtype", "float32"]
    with serving(*flags, log=tmp_path / "stderr.txt") as (service, url):
        processes = descendants(service.pid)
        commands = [command_line(process) for process in processes]
        assert sum("epidote_workers.ranks.follower" in line for line in commands) == 1
        answers = [asked(url, text, has_picture) for text, has_picture in QUESTIONS]
    assert answers == [wanted(text, has_picture) for text, has_picture in QUESTIONS]
    deadline_s = time.monotonic() + PATIENCE_S
    while any(is_running(process) for process in processes):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def asked(url: str, text: str, has_picture: bool) -> str:
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if has_picture:
        data = base64.b64encode(encode(PICTURE, ImageFormat.PNG)).decode()
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
        content.insert(0, image)
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": TOKENS,
        "ignore_eos": True,
    }
    reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=PATIENCE_S, trust_env=False)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


def wanted(text: str, has_picture: bool) -> str:
    """What one engine says that holds the whole model."""
    processor = PromptProcessor.from_model("demo")
    pixels: list[MediaPixels] = []
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if has_picture:
        pixels = [processor.prepare_image(PICTURE, "picture")]
        content.insert(0, {"type": "image"})
    prompt = processor.render_chat([{"role": "user", "content": content}], media=pixels)
    request = GenerateRequest(
        request_id="r",
        prompt_token_ids=prompt.token_ids,
        media=prompt.media,
        sampling=SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True),
    )
    engine = Engine(EngineConfig(model="demo", dtype="float32", num_kv_blocks=64))
    return serve(engine, [request], pixels)["r", 0].text
