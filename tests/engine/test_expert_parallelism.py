"""A model whose ranks hold whole experts says what the whole one says, also while experts move.

Two real processes; gloo here, NCCL on GPUs: the engine makes the same calls.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from epidote_core.expert_placement import Placement, default_placement
from epidote_engine.answers import tokens_of
from epidote_engine.config import load_model_spec
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.expert_spec import ExpertSpec
from epidote_engine.parallel.shards import Shards
from epidote_engine.parallel.weights import ShardedWeights
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model

NUM_RANKS = 2
FOUR, SEVEN = 12, 15  # seeds of models with so many experts in each of three layers
SIZES: dict[str, Any] = {
    "dtype": "float32", "block_size": 4, "num_kv_blocks": 60, "max_num_seqs": 4,
    "count_expert_tokens": True, "prefix_caching": False,
}  # fmt: skip
PROMPTS = [[5, 6, 7], list(range(40, 59)), [200], [9, 9, 9, 1]]
RANK = """
import gc, json, sys, time
import torch
import torch.distributed as dist
from epidote_core.errors import InvalidRequest
from epidote_core.generation import GenerateRequest
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.in_process import collect
from epidote_engine.parallel.following import LeadingEngine, follow
from epidote_engine.parallel.shards import Shards
from epidote_engine.parallel.weights import ShardedWeights
from epidote_engine.settings import WeightsPolicy

def as_placement(placement):
    return tuple(map(tuple, placement))

def round_of(leader, prompts, targets, is_hasty):
    for n, prompt in enumerate(prompts):
        sampling = SamplingParams(max_tokens=12, temperature=0.9 * (n % 2), seed=n, ignore_eos=True)
        leader.add(GenerateRequest(
            request_id=f"{n}", prompt_token_ids=tuple(prompt), sampling=sampling))
    answers, changes = {}, 0
    while not leader.is_drained():
        if targets and (is_hasty or not leader.engine.expert_places.is_moving):
            leader.place_experts(as_placement(targets.pop(0)))
        before = leader.expert_placement()
        collect(answers, leader.step())
        changes += leader.expert_placement() != before
    return [answers[f"{n}", 0].token_ids for n in range(len(prompts))], changes

def lead(leader, case, prompts):
    told, targets = {"start": leader.expert_placement(), "rounds": [], "changes": 0}, case["moves"]
    if "asleep" in case:  # what is loaded for a later role stands as was asked for meanwhile
        leader.set_role(Role.ENCODE)
        leader.place_experts(as_placement(case["asleep"]))
        assert leader.expert_placement() == as_placement(case["asleep"])
        leader.set_role(Role.ALL)
    if "at_rest" in case:
        leader.place_experts(as_placement(case["at_rest"]))
        while leader.has_work():
            assert not leader.step()
        assert leader.expert_placement() == as_placement(case["at_rest"])
    try:
        leader.place_experts(((0,),))
    except InvalidRequest as error:
        told["refused"] = str(error)
    deadline_s = time.monotonic() + 300
    while not told["rounds"] or targets or leader.has_work():
        tokens, changes = round_of(leader, prompts, targets, case.get("hasty", False))
        told["rounds"].append(tokens)
        told["changes"] += changes
        assert time.monotonic() < deadline_s, "experts do not arrive"
    told["counts"] = leader.expert_tokens()
    leader.stop()
    return told

def work(folder, rank):
    task, told, read, shards = json.load(open(f"{folder}/task.json")), [], 0, Shards()
    plain = ShardedWeights.__getitem__

    def counted(self, name):
        nonlocal read
        before = self.bytes_read
        found = plain(self, name)
        read += self.bytes_read - before
        return found

    ShardedWeights.__getitem__ = counted
    for case in task["cases"]:
        read = 0
        config = EngineConfig(weights_policy=WeightsPolicy.RELEASE, **case["config"])
        engine = Engine(config, shards=shards)
        told.append({"bytes": read})
        if rank:
            follow(engine, dist.group.WORLD)
            assert engine.is_drained()
        else:
            told[-1] |= lead(LeadingEngine(engine, dist.group.WORLD), case, task["prompts"])
        told[-1]["end"] = engine.expert_placement()
        told[-1]["moved_bytes"] = read - told[-1]["bytes"]
    json.dump(told, open(f"{folder}/told{rank}.json", "w"))

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
work(folder, rank)  # whose end drops the leader: a group that is still held aborts the exit
gc.collect()
dist.destroy_process_group()
"""


def shuffled(layers: int, experts: int, redundant: int, seed: int) -> list[list[int]]:
    """A placement drawn at random."""
    rng, placement = Random(seed), []
    for _ in range(layers):
        slots = [*range(experts), *rng.choices(range(experts), k=redundant)]
        rng.shuffle(slots)
        placement.append(slots)
    return placement


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ranks_with_whole_experts_say_what_one_engine_says_wherever_these_stand(
    tmp_path: Path,
) -> None:
    models = {}
    for seed in (FOUR, SEVEN):
        models[seed] = str(tmp_path / f"{seed}")
        save_tiny_model(Path(models[seed]), Architecture.QWEN3_MOE, seed, max_shard_size="40KB")

    def config(seed: int, redundant: int = 0, **more: Any) -> dict[str, Any]:
        parallel = {"expert_parallel": True, "num_redundant_experts": redundant}
        return {"model": models[seed], **SIZES, **parallel, **more}

    swapped = [[2, 1, 0, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
    skewed = [[6, 6, 6, 6, 5, 4, 3, 2, 1, 0]] * 3  # one rank has four replicas of one expert
    cases: list[dict[str, Any]] = [
        {"config": config(FOUR), "moves": [], "at_rest": swapped},
        {"config": config(FOUR, 2, overlap_steps=True),
         "moves": [shuffled(3, 4, 2, seed) for seed in range(4)]},
        {"config": config(SEVEN, 3, static_shapes=True), "moves": [], "at_rest": skewed},
        {"config": config(SEVEN, 1), "moves": [shuffled(3, 7, 1, seed) for seed in range(4)],
         "asleep": shuffled(3, 7, 1, 9)},
        {"config": config(SEVEN, 1, chunk_tokens=5), "hasty": True,
         "moves": [shuffled(3, 7, 1, seed) for seed in range(8)]},
        {"config": {"model": models[SEVEN], **SIZES}, "moves": []},
    ]  # fmt: skip
    told = run_ranks(tmp_path, {"cases": cases, "prompts": PROMPTS})
    wanted = {path: tokens_and_counts_of(path) for path in models.values()}
    for number, case in enumerate(cases):
        mine, other = told[0][number], told[1][number]
        path = case["config"]["model"]
        tokens, counts = wanted[path]
        assert all(found == tokens for found in mine["rounds"]), case
        assert mine["end"] == other["end"]
        # of experts, wherever they stand
        assert mine["counts"] == [[n * len(mine["rounds"]) for n in layer] for layer in counts]
        if "expert_parallel" not in case["config"]:
            assert mine["end"] is None
            assert "holds no whole experts" in mine["refused"]
            continue
        assert "placement: must have 3 layers, got 1" in mine["refused"]
        experts: ExpertSpec = load_model_spec(path).text["experts"]
        slots = experts.num_experts + case["config"]["num_redundant_experts"]
        assert as_lists(default_placement(3, experts.num_experts, slots)) == mine["start"]
        if case["moves"]:
            assert mine["end"] == case["moves"][-1]
            # between tokens; of targets that are replaced at once only the last is sure to be met
            num_met = 1 if case.get("hasty") else len(case["moves"])
            assert mine["changes"] >= num_met * len(mine["end"])
        expert_bytes = 3 * load_model_spec(path).decoder.hidden * experts.intermediate * 4
        for rank, found in enumerate((mine, other)):
            others = bytes_without_experts(path, rank)
            assert found["bytes"] == others + 3 * slots // NUM_RANKS * expert_bytes
    # two experts changed their slots: each rank has read the one that came to it
    one = 3 * load_model_spec(models[FOUR]).decoder.hidden * 16 * 4
    assert [told[rank][0]["moved_bytes"] for rank in range(NUM_RANKS)] == [one, one]


def run_ranks(folder: Path, task: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """What each rank told, by case."""
    (folder / "task.json").write_text(json.dumps(task))
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(folder), str(rank)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(NUM_RANKS)
    ]
    try:
        errors = [rank.communicate(timeout=560)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert all(rank.returncode == 0 for rank in ranks), errors
    return [json.loads((folder / f"told{rank}.json").read_text()) for rank in range(NUM_RANKS)]


def tokens_and_counts_of(path: str) -> tuple[list[list[int]], list[list[int]]]:
    engine = Engine(EngineConfig(model=path, **SIZES))
    tokens = tokens_of(engine, PROMPTS)
    counts = engine.expert_tokens()
    assert counts is not None
    return tokens, as_lists(counts)


def bytes_without_experts(path: str, rank: int) -> int:
    weights = ShardedWeights(load_model_spec(path), Shards.place(rank, NUM_RANKS), device="cpu")
    for name in weights:
        if ".mlp.experts." not in name:
            weights[name]
    return weights.bytes_read


def as_lists(placement: Placement) -> list[list[int]]:
    return [list(layer) for layer in placement]
