"""What one call of `step` hands out, and when."""

import pytest

from epidote_core.generation import GenerateRequest
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.events import FirstToken, KvReserved, MediaReady, TokensOut
from epidote_engine.sequence import Mode
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import noise_image, save_tiny_model


@pytest.fixture
def engine(qwen3_directory):
    return Engine(
        EngineConfig(model=qwen3_directory, dtype="float32", block_size=4, num_kv_blocks=60)
    )


@pytest.fixture(scope="session")
def qwen3_directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("steps") / "tiny"
    save_tiny_model(path, Architecture.QWEN3_VL, seed=2)
    return str(path)


def request(name, prompt=(5, 6, 7, 8, 9)):
    return GenerateRequest(
        request_id=name,
        prompt_token_ids=tuple(prompt),
        sampling=SamplingParams(max_tokens=20, temperature=0.0, ignore_eos=True),
    )


def test_the_first_token_leaves_before_anything_else_is_computed(engine):
    engine.add(request("busy"))
    engine.step()
    engine.add(request("apart", (1, 2, 3)), mode=Mode.DECODE)
    events = engine.step()
    assert any(isinstance(event, KvReserved) for event in events)
    engine.commit_kv("apart", FirstToken(token_id=11))
    (event,) = engine.step()  # nothing of "busy": no step was computed before it
    assert isinstance(event, TokensOut)
    assert (event.request_id, event.chunks[0].token_ids) == ("apart", (11,))
    moved = {event.request_id for event in engine.step() if isinstance(event, TokensOut)}
    assert moved == {"busy", "apart"}


def test_tokens_are_not_held_back_by_a_picture_and_pictures_not_by_tokens(engine, qwen3):
    engine.add(request("text"))
    engine.step()
    for number in range(3):
        engine.submit_media(qwen3.prepare_image(noise_image(400, 400, seed=number), f"{number}"))
    kinds = [{type(event) for event in engine.step()} for _ in range(4)]
    assert {MediaReady, TokensOut} not in kinds
    assert {TokensOut} in kinds
    assert {MediaReady} in kinds
