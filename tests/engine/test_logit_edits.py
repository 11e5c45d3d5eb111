"""Bias, min_tokens and penalties: what they do to answers, and that no step waits for them."""

from typing import Any

import pytest
import torch
from numpy.typing import NDArray

from epidote_core.generation import GenerateRequest
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.in_process import serve
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model
from epidote_engine.vision.upload import upload

NUM_TOKENS = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("edits") / "tiny"
    save_tiny_model(path, Architecture.QWEN3, seed=5)
    return str(path)


def told(model: str, *given: dict[str, Any], overlaps: bool) -> list[list[int]]:
    config = EngineConfig(model=model, dtype="float32", num_kv_blocks=60, overlap_steps=overlaps)
    requests = [
        GenerateRequest(
            request_id=f"{n}",
            prompt_token_ids=(1, 2, 3),
            sampling=SamplingParams(
                **{"max_tokens": NUM_TOKENS, "temperature": 0.0, "ignore_eos": True, **some}
            ),
        )
        for n, some in enumerate(given)
    ]
    answers = serve(Engine(config), requests)
    return [answers[f"{n}", 0].token_ids for n in range(len(given))]


@pytest.mark.parametrize("overlaps", [False, True])
def test_every_row_has_its_own_edits(model: str, overlaps: bool) -> None:
    (plain,) = told(model, {}, overlaps=False)
    stop = plain[0]
    both = told(
        model,
        {},
        {"logit_bias": ((77, 1e4),)},
        {"logit_bias": ((stop, -1e4),)},
        {"stop_token_ids": (stop,)},
        {"stop_token_ids": (stop,), "min_tokens": 5},
        {"logit_bias": ((9, 1e4),), "stop_token_ids": (9,), "min_tokens": 4},
        overlaps=overlaps,
    )
    assert both[0] == plain
    assert both[1] == [77] * NUM_TOKENS
    assert both[2][0] != stop
    assert stop not in both[2]
    assert both[3] == [stop]
    assert stop not in both[4][:5]
    assert len(both[4]) > 5
    assert 9 not in both[5][:4]
    assert both[5][4:] == [9]  # from the first step that may end it on, the bias has its way


@pytest.mark.parametrize("overlaps", [False, True])
def test_a_large_repetition_penalty_repeats_nothing(model: str, overlaps: bool) -> None:
    bias = {"logit_bias": ((2, 3.0), (77, 3.0))}
    penalties = {"repetition_penalty": 10.0, "presence_penalty": 2.0}
    repeats, once = told(model, bias, bias | penalties, overlaps=overlaps)
    assert len(set(repeats)) < NUM_TOKENS
    assert once.count(77) == 1  # not in the prompt: once it may come
    assert 2 not in once
    assert len(set(once)) == NUM_TOKENS


class Watched:
    """torch, that notes who asks for tensors in ways that wait for a GPU."""

    def __init__(self, made: list[str]) -> None:
        self._made = made

    def __getattr__(self, name: str) -> Any:
        if name in ("tensor", "from_numpy", "as_tensor", "bincount"):
            self._made.append(name)
        return getattr(torch, name)


@pytest.mark.parametrize(
    "given",
    [
        {"logit_bias": ((5, 3.0), (6, -2.0))},
        {"min_tokens": 9, "stop_token_ids": (7,)},
        {"repetition_penalty": 1.2, "presence_penalty": 0.5},
    ],
    ids=["bias", "min_tokens", "penalties"],
)
def test_edits_are_sent_once_not_every_step(
    model: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    made: list[str] = []  # by functions that wait for a GPU

    def counted(array: NDArray[Any], device: torch.device) -> torch.Tensor:
        sent.append(len(array))
        return upload(array, device)

    monkeypatch.setattr("epidote_engine.sampler.upload", counted)
    monkeypatch.setattr("epidote_engine.sampling_batch.upload", counted)
    monkeypatch.setattr("epidote_engine.sampler.torch", Watched(made))
    for count in (10, 50):
        sent.clear()
        made.clear()
        told(model, {**given, "max_tokens": count}, overlaps=True)
        # the prompt's step and the decodes after it are two sets of rows at most
        assert 0 < len(sent) <= 12
        assert made == []
