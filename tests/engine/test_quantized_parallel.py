"""Weights in 8 bits on two ranks say what one engine says whose weights those 8 bits stand for.

Two real processes over gloo. A CPU has 8-bit products for plain weights alone, so oneDNN's layout
is left out on both sides: float32 then, in which equal tokens are no luck.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from epidote_engine.answers import tokens_of
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.layers import linear
from epidote_engine.layers.linear import Linear
from epidote_engine.layers.mlp import Experts
from epidote_engine.layers.quantized_linear import KINDS, QuantizedLinear, quantize_experts
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model

NUM_RANKS = 2
SIZES: dict[str, Any] = {
    "dtype": "float32", "block_size": 4, "num_kv_blocks": 120, "max_num_seqs": 4,
    "native_decode": False, "prefix_caching": False,
}  # fmt: skip
PROMPTS = [[5, 6, 7], list(range(100, 180)), [200], [9, 9, 9, 1]]  # one more than 64 rows at once
RANK = """
import gc, json, sys, time
import torch
import torch.distributed as dist
from epidote_core.generation import GenerateRequest
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.in_process import collect
from epidote_engine.layers import linear
from epidote_engine.parallel.following import LeadingEngine, follow
from epidote_engine.parallel.shards import Shards
from epidote_engine.settings import WeightsPolicy

linear._packed = lambda weight: None  # plain weights, as on a GPU

def answers_of(leader, prompts, target):
    for n, prompt in enumerate(prompts):
        sampling = SamplingParams(max_tokens=12, temperature=0.9 * (n % 2), seed=n, ignore_eos=True)
        leader.add(GenerateRequest(
            request_id=f"{n}", prompt_token_ids=tuple(prompt), sampling=sampling))
    answers = {}
    if target:
        collect(answers, leader.step())
        leader.place_experts(tuple(map(tuple, target)))
    while not leader.is_drained():
        collect(answers, leader.step())
    return [answers[f"{n}", 0].token_ids for n in range(len(prompts))]

def lead(leader, case, prompts):
    model = leader.engine._parts.runner.model  # its inputs are cut: half of each row is here
    scales = model.layers[0].attention.out._part._scales.tolist()
    target, rounds = case.get("move"), [answers_of(leader, prompts, case.get("move"))]
    deadline_s = time.monotonic() + 300
    while target and leader.expert_placement() != tuple(map(tuple, target)):
        leader.step()
        assert time.monotonic() < deadline_s, "experts do not arrive"
    rounds.append(answers_of(leader, prompts, None))
    if not target:  # weights that come back with a role are quantised again
        leader.set_role(Role.ENCODE)
        leader.set_role(Role.ALL)
        rounds.append(answers_of(leader, prompts, None))
    leader.stop()
    return {"rounds": rounds, "scales": scales}

folder, rank = sys.argv[1], int(sys.argv[2])

def work():
    told = []
    task = json.load(open(f"{folder}/task.json"))
    for case in task["cases"]:
        policy = WeightsPolicy(case["config"].pop("weights_policy", "resident"))
        engine = Engine(EngineConfig(weights_policy=policy, **case["config"]), shards=Shards())
        if rank:
            follow(engine, dist.group.WORLD)
        else:
            told.append(lead(LeadingEngine(engine, dist.group.WORLD), case, task["prompts"]))
    json.dump(told, open(f"{folder}/told{rank}.json", "w"))

torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
work()  # whose end drops the leader: a group that is still held aborts the exit
gc.collect()
dist.destroy_process_group()
"""


def dequantised(engine: Engine, kind: str) -> Engine:
    """The engine with every weight that has 8 bits replaced by what those stand for."""
    runner = engine._parts.runner
    assert runner is not None

    def widen(plain: Linear) -> None:
        before = plain._weight
        plain._weight = QuantizedLinear(plain, KINDS[kind]).widened(torch.float32)
        assert before is not None
        assert not torch.equal(plain._weight, before)

    for layer in runner.model.layers:
        widen(layer.attention.qkv)
        widen(layer.attention.out)
        if isinstance(layer.mlp, Experts):
            quantize_experts(layer.mlp, KINDS[kind])
            assert layer.mlp.scales is not None
            gate_up, down = layer.mlp.scales
            layer.mlp.gate_up = layer.mlp.gate_up.float() * gate_up[..., None]
            layer.mlp.down = layer.mlp.down.float() * down[..., None]
            layer.mlp.scales = None
        else:
            widen(layer.mlp.gate_up)
            widen(layer.mlp.down)
    widen(runner.model.head)
    return engine


def scales_of_a_cut_weight(engine: Engine, kind: str) -> list[float]:
    """Of a whole row each, which no rank has."""
    runner = engine._parts.runner
    assert runner is not None
    layer = QuantizedLinear(runner.model.layers[0].attention.out, KINDS[kind])
    scales: list[float] = layer._scales.tolist()
    return scales


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_ranks_in_8_bits_say_what_the_dequantised_model_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "_packed", lambda weight: None)
    paths = {}
    for architecture, seed in (
        (Architecture.QWEN3, 3), (Architecture.LLAMA, 7), (Architecture.QWEN3_MOE, 12),
    ):  # fmt: skip
        paths[architecture] = str(tmp_path / architecture)
        save_tiny_model(Path(paths[architecture]), architecture, seed)
    whole = {"expert_parallel": True, "num_redundant_experts": 2}
    swapped = [
        [2, 1, 0, 3, 3, 0],
        [0, 1, 2, 3, 1, 1],
        [3, 2, 1, 0, 0, 1],
    ]  # four experts, six slots
    cases: list[dict[str, Any]] = []
    for architecture, kind, more in (
        (Architecture.QWEN3, "int8", {}),
        (Architecture.LLAMA, "fp8", {"weights_policy": "release"}),
        (Architecture.QWEN3_MOE, "fp8", {}),
        (Architecture.QWEN3_MOE, "int8", {"weights_policy": "release"}),
        (Architecture.QWEN3_MOE, "int8", {**whole, "overlap_steps": True}),
        (Architecture.QWEN3_MOE, "fp8", whole),
    ):
        config = {"model": paths[architecture], "quantization": kind, **SIZES, **more}
        cases.append(
            {"config": config} | ({"move": swapped} if more.get("expert_parallel") else {})
        )
    (tmp_path / "task.json").write_text(json.dumps({"cases": cases, "prompts": PROMPTS}))
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(tmp_path), str(rank)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(NUM_RANKS)
    ]
    try:
        wanted = {}
        for case in cases:
            path, kind = case["config"]["model"], case["config"]["quantization"]
            if (path, kind) not in wanted:
                plain = Engine(EngineConfig(model=path, **SIZES))
                scales = scales_of_a_cut_weight(plain, kind)
                wanted[path, kind] = scales, tokens_of(dequantised(plain, kind), PROMPTS)
        errors = [rank.communicate(timeout=860)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert all(rank.returncode == 0 for rank in ranks), errors
    told = json.loads((tmp_path / "told0.json").read_text())
    for case, found in zip(cases, told, strict=True):
        config = case["config"]
        scales, wanted_tokens = wanted[config["model"], config["quantization"]]
        assert found["scales"] == scales, config
        for tokens in found["rounds"]:
            assert tokens == wanted_tokens, config


def test_one_engine_in_8_bits_says_what_the_dequantised_one_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "_packed", lambda weight: None)
    for architecture in (Architecture.QWEN3, Architecture.QWEN3_MOE):
        path = str(tmp_path / architecture)
        save_tiny_model(Path(path), architecture, 12)
        for kind in KINDS:
            config = EngineConfig(model=path, quantization=kind, **SIZES)
            want = tokens_of(dequantised(Engine(EngineConfig(model=path, **SIZES)), kind), PROMPTS)
            assert tokens_of(Engine(config), PROMPTS) == want
