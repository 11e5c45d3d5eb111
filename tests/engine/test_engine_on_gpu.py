"""The whole engine on a CUDA device, with graphs and overlapped steps, says what the CPU says."""

from pathlib import Path
from typing import Any

import pytest
import torch

from epidote_core.generation import GenerateRequest
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.in_process import serve
from epidote_engine.settings import WeightsPolicy
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

ARCHITECTURES = (Architecture.QWEN3, Architecture.LLAMA, Architecture.QWEN3_MOE)


def requests(temperature: float) -> list[GenerateRequest]:
    return [
        GenerateRequest(
            request_id=f"{n}",
            prompt_token_ids=tuple((7 * n + i) % 256 for i in range(3 * n + 1)),
            sampling=SamplingParams(
                max_tokens=5 + n, temperature=temperature, seed=n, top_p=0.9, ignore_eos=True
            ),
        )
        for n in range(11)
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("overlaps", [False, True])
def test_greedy_answers_in_float32_equal_the_cpus(
    architecture: Architecture, overlaps: bool, tmp_path: Path
) -> None:
    save_tiny_model(tmp_path / "tiny", architecture, seed=5)
    sizes = {"model": str(tmp_path / "tiny"), "dtype": "float32", "num_kv_blocks": 200}
    want = serve(Engine(EngineConfig(**sizes)), requests(0.0))
    engine = Engine(EngineConfig(**sizes, device="cuda", max_num_seqs=8, overlap_steps=overlaps))
    got = serve(engine, requests(0.0))
    assert {k: v.token_ids for k, v in got.items()} == {k: v.token_ids for k, v in want.items()}
    assert engine.is_drained()
    assert engine.conservation_errors() == []


@pytest.mark.parametrize("overlaps", [False, True])
def test_chunks_of_a_slow_device_are_waited_for(overlaps: bool, tmp_path: Path) -> None:
    """Prompts of many chunks, of which only the last samples, and a host far ahead of the device:
    inputs that were overwritten on their way, or blocks shared too early, would change answers."""
    save_tiny_model(tmp_path / "tiny", Architecture.QWEN3, seed=5)
    sizes = {"model": str(tmp_path / "tiny"), "dtype": "float32", "num_kv_blocks": 200}
    sizes |= {"chunk_tokens": 16, "max_batched_tokens": 48, "max_num_seqs": 8}
    long = [
        GenerateRequest(
            request_id=f"{n}",
            prompt_token_ids=(*((7 * i) % 250 for i in range(100 + 20 * n)), n),
            sampling=SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True),
        )
        for n in range(5)
    ]
    want = serve(Engine(EngineConfig(**sizes)), long)
    engine = Engine(EngineConfig(**sizes, device="cuda", overlap_steps=overlaps))
    runner = engine._parts.runner
    assert runner is not None
    step = runner.step

    def slow(*arguments: Any, **named: Any) -> Any:
        torch.cuda._sleep(20_000_000)  # cycles, about 10 ms: far more than a step of this model
        return step(*arguments, **named)

    runner.step = slow  # type: ignore[method-assign]
    got = serve(engine, long)
    assert {k: v.token_ids for k, v in got.items()} == {k: v.token_ids for k, v in want.items()}
    assert engine.is_drained()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="only one CUDA device")
def test_an_engine_works_on_its_device_whichever_is_current(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "tiny", Architecture.QWEN3, seed=5)
    sizes = {"model": str(tmp_path / "tiny"), "dtype": "float32", "num_kv_blocks": 200}
    want = serve(Engine(EngineConfig(**sizes)), requests(0.0))
    engine = Engine(EngineConfig(**sizes, device="cuda:1"))
    got = serve(engine, requests(0.0))
    assert {k: v.token_ids for k, v in got.items()} == {k: v.token_ids for k, v in want.items()}
    assert torch.cuda.current_device() == 0


def test_overlapped_draws_equal_plain_ones(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "tiny", Architecture.QWEN3, seed=5)
    told = []
    for overlaps in (False, True):
        config = EngineConfig(
            model=str(tmp_path / "tiny"), dtype="float32", num_kv_blocks=200, device="cuda",
            overlap_steps=overlaps,
        )  # fmt: skip
        answers = serve(Engine(config), requests(0.9))
        told.append({key: answer.token_ids for key, answer in answers.items()})
    assert told[0] == told[1]


def test_released_weights_leave_the_device_and_come_back(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "tiny", Architecture.QWEN3_VL, seed=5)
    config = EngineConfig(
        model=str(tmp_path / "tiny"), dtype="float32", num_kv_blocks=100, device="cuda",
        weights_policy=WeightsPolicy.RELEASE, num_media_rows=64,
    )  # fmt: skip
    engine = Engine(config)
    want = serve(engine, requests(0.0))
    engine.set_role(Role.ENCODE)
    engine.set_role(Role.ALL)
    again = serve(engine, requests(0.0))
    assert {k: v.token_ids for k, v in again.items()} == {k: v.token_ids for k, v in want.items()}


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_codes_of_one_byte_say_nearly_what_the_cpus_say(kind: str, tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "tiny", Architecture.QWEN3, seed=5)
    told = []
    for device in ("cpu", "cuda"):
        config = EngineConfig(
            model=str(tmp_path / "tiny"), dtype="float32", num_kv_blocks=200, device=device,
            kv_cache_dtype=kind, chunk_tokens=16,
        )  # fmt: skip
        request = GenerateRequest(
            request_id="a",
            prompt_token_ids=tuple(range(40)),
            sampling=SamplingParams(max_tokens=1, temperature=0.0, logprobs=3, ignore_eos=True),
        )
        told.append(dict(serve(Engine(config), [request])["a", 0].logprobs[0].top))
    assert told[0] == pytest.approx(told[1], abs=0.02)  # a code more or less, where they round


def test_tokens_per_expert_are_counted_in_graphs_too(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "tiny", Architecture.QWEN3_MOE, seed=5)
    counts = []
    for device in ("cpu", "cuda"):
        config = EngineConfig(
            model=str(tmp_path / "tiny"), dtype="float32", num_kv_blocks=200, device=device,
            count_expert_tokens=True, overlap_steps=False,
        )  # fmt: skip
        engine = Engine(config)
        serve(engine, requests(0.0))
        counts.append(engine.expert_tokens())
    assert counts[0] == counts[1]


def test_the_kv_pool_takes_its_part_of_the_whole_memory(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "tiny", Architecture.QWEN3, seed=5)
    _free, total = torch.cuda.mem_get_info()
    engine = Engine(
        EngineConfig(model=str(tmp_path / "tiny"), device="cuda", memory_utilization=0.1)
    )
    pool = engine.kv_pool.tensor
    taken = pool.numel() * pool.element_size()
    assert 0.1 * total - (4 << 30) < taken < 0.1 * total
    del engine, pool
    shared = EngineConfig(
        model=str(tmp_path / "tiny"), device="cuda", memory_utilization=0.1, device_share=0.5
    )
    engines = [Engine(shared) for _ in range(2)]
    sizes = {engine.kv_pool.num_blocks for engine in engines}
    assert len(sizes) == 1  # the second as much as the first
