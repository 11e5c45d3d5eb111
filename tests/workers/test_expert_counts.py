"""What experts computed travels from the engine to whoever follows the worker."""

import asyncio
from pathlib import Path

import pytest

from epidote_core.generation import GenerateRequest, Route
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_engine.settings import EngineConfig
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model
from epidote_workers import status_board
from epidote_workers.in_process_fleet import InProcessFleet, until


def test_a_client_hears_the_engines_own_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_board, "EXPERTS_EVERY_S", 0.05)
    save_tiny_model(tmp_path / "model", Architecture.QWEN3_MOE, seed=3)
    config = EngineConfig(model=str(tmp_path / "model"), num_kv_blocks=32, count_expert_tokens=True)
    request = GenerateRequest(
        request_id="r",
        prompt_token_ids=tuple(range(5, 40)),
        sampling=SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True),
    )

    async def run() -> None:
        fleet = InProcessFleet(tmp_path, config)
        try:
            worker = await fleet.add("a", Role.ALL)
            await fleet.connect()
            before = fleet.client.workers()[0].expert_tokens
            await fleet.ask(request, Route(prefill="a", decode="a"))
            engine = worker._running.engine
            table = await engine.call(lambda engine: engine.expert_tokens())
            assert table is not None
            assert sum(map(sum, table)) > sum(map(sum, before))
            await until(lambda: fleet.client.workers()[0].expert_tokens == table)
        finally:
            await fleet.stop()

    asyncio.run(run())
