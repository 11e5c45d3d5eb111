"""KV codes of two workers are copied only where they mean the same numbers."""

import asyncio
import math
from pathlib import Path

import pytest

from epidote_core.generation import GenerateRequest, Route
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_engine.settings import EngineConfig
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model
from epidote_workers.engine_protocol import Allocate, EngineLike, real_engine
from epidote_workers.in_process_fleet import InProcessFleet, Lost
from epidote_workers.kv_agreement import ROUNDING, disagreement

SCALES = ((0.5, 2.0, 1e-3), (4.0, 0.25, 3.0))


@pytest.mark.parametrize("dtype", ROUNDING)
def test_what_a_step_of_bfloat16_moves_is_let_pass(dtype: str) -> None:
    theirs = tuple(tuple(scale * (1 + 2**-7) for scale in of) for of in SCALES)
    assert disagreement(SCALES, theirs, ROUNDING[dtype]) == ""


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("factor", [0.9, 1.1, 2.0, 0.0, -1.0, math.inf, math.nan])
def test_one_scale_that_differs_by_more_is_refused_with_both_numbers(
    dtype: str, factor: float
) -> None:
    theirs = (SCALES[0], (4.0, 0.25, 3.0 * factor))
    reason = disagreement(SCALES, theirs, ROUNDING[dtype])
    assert f"{3.0 * factor:.4g} there, 3 here" in reason


@pytest.mark.parametrize("theirs", [(), ((0.5, 2.0, 1e-3),), ((0.5,), (4.0,))])
def test_a_peer_that_is_cut_otherwise_or_has_no_codes_is_refused(
    theirs: tuple[tuple[float, ...], ...],
) -> None:
    assert "scales by rank there, [3, 3] here" in disagreement(SCALES, theirs, 1.0)


def test_workers_that_measured_alike_hand_codes_over_and_others_are_refused(
    tmp_path: Path,
) -> None:
    save_tiny_model(tmp_path / "model", Architecture.LLAMA, seed=7)
    config = EngineConfig(model=str(tmp_path / "model"), num_kv_blocks=32, kv_cache_dtype="int8")

    def make(config: EngineConfig, allocate: Allocate) -> EngineLike:
        engine = real_engine(config, allocate)
        if config.worker_id == "other":  # as if its device had computed the sample otherwise
            for layer in engine._parts.runner.model.layers:  # type: ignore[attr-defined]
                layer.attention.k_scale = layer.attention.k_scale * 1.1
        return engine

    async def run() -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        fleet = InProcessFleet(tmp_path, config, make_engine=make)
        try:
            for worker_id, role in (("p", Role.PREFILL), ("other", Role.PREFILL), ("d", Role.ALL)):
                await fleet.add(worker_id, role)
            await fleet.connect()
            alone = await fleet.ask(request_of("alone"), Route(prefill="d", decode="d"))
            apart = await fleet.ask(request_of("apart"), Route(prefill="p", decode="d"))
            with pytest.raises(Lost) as lost:
                await fleet.ask(request_of("refused"), Route(prefill="other", decode="d"))
            assert lost.value.worker_id == "other"
            return alone, apart
        finally:
            await fleet.stop()

    alone, apart = asyncio.run(run())
    assert apart == alone


def request_of(name: str) -> GenerateRequest:
    return GenerateRequest(
        request_id=name,
        prompt_token_ids=tuple(range(5, 60)),
        cache_salt=name,  # nobody finds another's blocks: they must be copied
        sampling=SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True),
    )
