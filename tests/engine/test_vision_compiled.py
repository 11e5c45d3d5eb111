"""This file is about vision towers whose chains are compiled: equal rows, and compiled once."""

import shutil

import numpy as np
import pytest
import torch

from epidote_core.generation import GenerateRequest, MediaKind, MediaPixels
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_engine.config import load_model_spec
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.in_process import serve
from epidote_engine.processing import PromptProcessor
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import noise_image, save_tiny_model
from epidote_engine.vision import chains
from epidote_engine.vision.encoder import VisionEncoder
from epidote_engine.weights import vision_weights

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no C++ compiler for torch.compile"
)


def noise(rng: np.random.Generator, rows: int, columns: int, patch: int) -> MediaPixels:
    shape = (1, rows * patch, columns * patch, 3)
    return MediaPixels(
        key=f"{rng.integers(2**62):x}",
        kind=MediaKind.IMAGE,
        num_frames=1,
        height=shape[1],
        width=shape[2],
        grid_thw=(1, rows, columns),
        num_tokens=rows * columns // 4,
        data=rng.integers(0, 256, shape, dtype=np.uint8).tobytes(),
    )


@needs_compiler
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("architecture", [Architecture.QWEN3_VL, Architecture.QWEN2_5_VL])
def test_compiled_towers_give_the_plain_rows_and_compile_nothing_later(
    architecture: Architecture, tmp_path
) -> None:
    save_tiny_model(tmp_path, architecture, 5)
    spec = load_model_spec(str(tmp_path))
    weights = vision_weights(spec, dtype=torch.float32, device="cpu")
    plain = VisionEncoder(spec, weights, torch.float32, "cpu")
    compiled = VisionEncoder(spec, weights, torch.float32, "cpu", compiles=True)
    assert compiled.is_compiled
    assert not plain.is_compiled
    rng = np.random.default_rng(3)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for count in range(1, 6):  # batches of other sizes, odd ones and the smallest
            sizes = [(2, 2)] * (count == 1) or (2 * rng.integers(1, 9, (count, 2))).tolist()
            media = [noise(rng, rows, columns, spec.vision.patch) for rows, columns in sizes]
            for want, got in zip(plain.encode(media), compiled.encode(media), strict=True):
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@needs_compiler
@pytest.mark.slow
def test_an_engine_with_a_compiled_tower_answers_as_one_without(tmp_path) -> None:
    save_tiny_model(tmp_path, Architecture.QWEN3_VL, 5)
    processor = PromptProcessor.from_model(str(tmp_path))
    media = [processor.prepare_image(noise_image(90, 130, seed=n), f"{n}") for n in range(2)]
    content = [{"type": "image"}, {"type": "text", "text": "and"}, {"type": "image"}]
    prompt = processor.render_chat([{"role": "user", "content": content}], media=media)
    request = GenerateRequest(
        request_id="r",
        prompt_token_ids=prompt.token_ids,
        media=prompt.media,
        sampling=SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True),
    )
    answers = {}
    for compiles in (True, False):
        config = EngineConfig(
            model=str(tmp_path), dtype="float32", num_kv_blocks=40, compile_vision=compiles
        )
        engine = Engine(config)
        assert engine._parts.encoder is not None
        assert engine._parts.encoder.is_compiled is compiles
        answers[compiles] = serve(engine, [request], media)["r", 0].token_ids
    assert answers[True] == answers[False]
    assert len(answers[True]) == 8


def test_without_a_compiler_the_plain_tower_stays_and_says_so(
    tmp_path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(chains, "_compiled", refuse)
    save_tiny_model(tmp_path, Architecture.QWEN3_VL, 5)
    engine = Engine(EngineConfig(model=str(tmp_path), role=Role.ENCODE, compile_vision=True))
    assert engine._parts.encoder is not None
    assert not engine._parts.encoder.is_compiled
    assert caplog.messages == ["vision tower not compiled"]
