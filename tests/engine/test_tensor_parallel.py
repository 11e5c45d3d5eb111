"""A model cut over two processes says what the whole one says, and each reads its part only.

Processes talk over gloo here and over NCCL on GPUs: the engine sees the same calls.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from epidote_core.errors import InvalidRequest
from epidote_engine.answers import tokens_of
from epidote_engine.config import load_model_spec
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.models.decoder import DecoderConfig
from epidote_engine.models.step_inputs import StepInputs
from epidote_engine.parallel.decoder import ParallelDecoderLM
from epidote_engine.parallel.shards import Shards
from epidote_engine.random_weights import RandomWeights
from epidote_engine.tensor_shapes import language_shapes
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model

MODELS = (
    (Architecture.QWEN3, 3), (Architecture.LLAMA, 7),  # four and six heads, two KV heads
    (Architecture.QWEN3_MOE, 3),
)  # fmt: skip
NUM_RANKS = 2
SIZES = {"dtype": "float32", "block_size": 4, "num_kv_blocks": 60, "max_num_seqs": 4}
RANK = """
import gc, json, sys
import torch
import torch.distributed as dist
from epidote_core.generation import GenerateRequest
from epidote_core.sampling import SamplingParams
from epidote_engine.config import load_model_spec
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.in_process import serve
from epidote_engine.parallel.following import LeadingEngine, follow
from epidote_engine.parallel.shards import Shards
from epidote_engine.parallel.weights import ShardedWeights

def work(folder, rank):
    task = json.load(open(f"{folder}/task.json"))
    shards, told = Shards(), {}
    for number, path in enumerate(task["models"]):
        engine = Engine(
            EngineConfig(
                model=path, overlap_steps=bool(number % 2),
                kv_cache_dtype=task["kv"].get(path, "auto"), **task["sizes"],
            ),
            shards=shards,
        )
        weights = ShardedWeights(load_model_spec(path), shards, device="cpu")
        for name in weights:
            weights[name]
        told[path] = {"bytes": weights.bytes_read}
        if rank:
            follow(engine, dist.group.WORLD)
            assert engine.is_drained()
            continue
        leader = LeadingEngine(engine, dist.group.WORLD)
        requests = [
            GenerateRequest(
                request_id=f"{n}", prompt_token_ids=tuple(prompt),
                sampling=SamplingParams(max_tokens=12, temperature=0.9 * (n % 2), seed=n,
                                        ignore_eos=True),
            )
            for n, prompt in enumerate(task["prompts"])
        ]
        sampling = SamplingParams(max_tokens=9)
        gone = GenerateRequest(request_id="gone", prompt_token_ids=(1, 2), sampling=sampling)
        leader.add(gone)
        leader.step()
        leader.abort("gone")
        answers = serve(leader, requests)
        told[path]["tokens"] = [answers[f"{n}", 0].token_ids for n in range(len(requests))]
        told[path]["scales"] = leader.kv_scales()
        leader.stop()
    json.dump(told, open(f"{folder}/told{rank}.json", "w"))

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
work(folder, rank)  # whose end drops the leader: a group that is still held aborts the exit
gc.collect()
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_ranks_say_what_one_engine_says_and_read_half(tmp_path: Path) -> None:
    paths, whole_bytes = [], {}
    for architecture, seed in MODELS:
        path = str(tmp_path / f"{architecture}{seed}")
        save_tiny_model(Path(path), architecture, seed, max_shard_size="40KB")
        assert len(list(Path(path).glob("*.safetensors"))) > 1
        paths.append(path)
    paths.append(one_kv_head(tmp_path / "shared"))
    coded = str(tmp_path / "coded")
    save_tiny_model(Path(coded), Architecture.LLAMA, 7)
    paths.append(coded)
    for path in paths:
        whole_bytes[path] = sum(p.stat().st_size for p in Path(path).glob("*.safetensors"))
    prompts = [[5, 6, 7], list(range(40, 59)), [200], [9, 9, 9, 1]]
    (tmp_path / "task.json").write_text(
        json.dumps({"models": paths, "prompts": prompts, "sizes": SIZES, "kv": {coded: "int8"}})
    )
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(tmp_path), str(rank)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(NUM_RANKS)
    ]
    wanted = {
        path: tokens_of(Engine(EngineConfig(model=path, **SIZES)), prompts)
        for path in paths
        if path != coded
    }
    whole = Engine(EngineConfig(model=coded, kv_cache_dtype="int8", **SIZES))
    wanted[coded] = tokens_of(whole, prompts)
    try:
        errors = [rank.communicate(timeout=560)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert all(rank.returncode == 0 for rank in ranks), errors
    told = [json.loads((tmp_path / f"told{rank}.json").read_text()) for rank in range(NUM_RANKS)]
    for path in paths:
        assert told[0][path]["tokens"] == wanted[path]
        for rank in range(NUM_RANKS):
            assert told[rank][path]["bytes"] < 0.6 * whole_bytes[path]
    scales = told[0][coded]["scales"]  # each rank measured its own heads' as the whole one did
    in_turns = [scale for pair in zip(*scales, strict=True) for scale in pair]
    assert in_turns == pytest.approx(whole.kv_scales()[0], rel=1e-4)


def one_kv_head(path: Path) -> str:
    """A model whose only KV head stands on both ranks."""
    save_tiny_model(path, Architecture.QWEN3, 4)
    config = json.loads((path / "config.json").read_text())
    config["num_key_value_heads"] = 1
    (path / "config.json").write_text(json.dumps(config))
    shapes = language_shapes(load_model_spec(str(path)))
    drawn = RandomWeights(shapes, dtype=torch.float32, device="cpu")
    names = {name: name if name.startswith("lm_head") else f"model.{name}" for name in drawn}
    save_file({names[name]: drawn[name] for name in drawn}, path / "model.safetensors")
    return str(path)


@pytest.mark.parametrize("vocab", [1, 7, 8, 272])
def test_every_token_lies_on_exactly_one_rank(vocab: int) -> None:
    parts = [Shards.place(rank, 4).vocabulary(vocab) for rank in range(4)]
    assert [t for start, end in parts for t in range(start, end)] == list(range(vocab))


def test_heads_are_shared_out_or_stand_on_several_ranks() -> None:
    assert [Shards.place(rank, 2).part(64, 16) for rank in range(2)] == [(0, 32), (32, 64)]
    assert [Shards.place(rank, 4).part(32, 16) for rank in range(4)] == [
        (0, 16), (0, 16), (16, 32), (16, 32),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "heads", "kv_heads", "inner"),
    [
        ("num_attention_heads", 3, 3, 8),
        ("num_key_value_heads", 6, 3, 8),
        ("intermediate_size", 4, 2, 7),
    ],
)
def test_a_model_that_cannot_be_cut_is_refused(
    field: str, heads: int, kv_heads: int, inner: int
) -> None:
    config = DecoderConfig(
        num_layers=1, hidden=8, num_heads=heads, num_kv_heads=kv_heads, head_dim=2,
        intermediate=inner, vocab=9,
    )  # fmt: skip
    with pytest.raises(InvalidRequest, match=f"over 2: {field} . can't be cut"):
        Shards.place(0, 2).own(config)


class Alone(Shards):
    """One rank, that notes how many numbers it summed, or gathered, with nobody."""

    def __init__(self) -> None:
        self.group, self.rank, self.size = None, 0, 1
        self.met: list[int] = []

    def summed(self, part: torch.Tensor) -> torch.Tensor:
        self.met.append(part.numel())
        return part

    def side_by_side(self, part: torch.Tensor, width: int) -> torch.Tensor:
        self.met.append(part.numel())
        return part[:, :width]


@pytest.mark.parametrize("hears", [False, True])
def test_ranks_meet_behind_a_chunk_of_which_nothing_is_sampled(tmp_path: Path, hears: bool) -> None:
    """A collective of nothing waits for nobody, and a peer may soon be told of the chunk's KV."""
    save_tiny_model(tmp_path / "tiny", Architecture.QWEN3, seed=2)
    spec, shards = load_model_spec(str(tmp_path / "tiny")), Alone()
    model = ParallelDecoderLM(spec, shards, torch.float32, "cpu")
    config = model.config
    kv = torch.zeros(config.num_layers, 2, 2, 16, config.num_kv_heads, config.head_dim)
    tokens = torch.arange(20)
    inputs = StepInputs.chunk(tokens, tokens, tokens, torch.tensor([[0, 1]], dtype=torch.int32))
    inputs.sample_rows = torch.empty(0, dtype=torch.int64)
    told: list[int] = []
    model.forward(inputs, kv, told.append if hears else None)
    assert shards.met[-1] > 0
    assert told == (list(range(config.num_layers)) if hears else [])


def test_the_sharded_parts_make_the_whole(tmp_path: Path) -> None:
    from epidote_engine.parallel.weights import ShardedWeights
    from epidote_engine.weights import language_weights

    save_tiny_model(tmp_path / "tiny", Architecture.LLAMA, 7)
    spec = load_model_spec(str(tmp_path / "tiny"))
    whole = language_weights(spec, dtype=torch.float32, device="cpu")
    parts = [ShardedWeights(spec, Shards.place(rank, 2), device="cpu") for rank in range(2)]
    assert set(parts[0]) == set(whole)
    for name, tensor in whole.items():
        first, second = (part[name] for part in parts)
        joined = [first, torch.cat((first, second), 0)]
        if first.dim() == 2:
            joined.append(torch.cat((first, second), 1))
        assert any(j.shape == tensor.shape and j.equal(tensor) for j in joined), name
