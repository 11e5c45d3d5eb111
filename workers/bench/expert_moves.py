"""What moving experts costs the steps meanwhile: two ranks decode, all experts change places.

A Qwen3-MoE of random weights is written to a temporary directory (0.4 GB) and cut over two
processes, which hold whole experts. Eight sequences decode; after a while every expert is sent to
another slot, and back. Reported are the times of decode steps at rest and in moves, what was moved,
and whether every token is what the same requests got at rest.

    python workers/bench/expert_moves.py --json out.json
    torchrun --nproc-per-node 2 workers/bench/expert_moves.py --device cuda --json out.json
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from result_file import conditions, write_result
from safetensors.torch import save_file

from epidote_core.expert_placement import Placement
from epidote_core.generation import GenerateRequest
from epidote_core.sampling import SamplingParams
from epidote_engine.config import load_model_spec
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.in_process import collect
from epidote_engine.parallel.following import LeadingEngine, follow
from epidote_engine.parallel.shards import Shards
from epidote_engine.random_weights import RandomWeights
from epidote_engine.tensor_shapes import language_shapes
from epidote_engine.tiny_models import IDS, save_tokenizer

NUM_RANKS = 2
NUM_SEQS = 8
MOVES = 4
SIZES = {
    "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 6, "vocab_size": 2048,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64, "num_experts": 16,
    "num_experts_per_tok": 2, "moe_intermediate_size": 512, "norm_topk_prob": True,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
}  # fmt: skip


def save_model(directory: Path) -> None:
    config = {
        **SIZES, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "dtype": "float32",
        "eos_token_id": IDS["<|im_end|>"], "bos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    save_tokenizer(directory)
    shapes = language_shapes(load_model_spec(str(directory)))
    drawn = RandomWeights(shapes, dtype=torch.float32, device="cpu")
    names = {name: name if name.startswith("lm_head") else f"model.{name}" for name in drawn}
    save_file({names[name]: drawn[name] for name in drawn}, directory / "model.safetensors")


def requests(num_tokens: int) -> list[GenerateRequest]:
    sampling = SamplingParams(max_tokens=num_tokens, ignore_eos=True)
    prompts = [tuple(range(10 * n, 10 * n + 32)) for n in range(NUM_SEQS)]
    return [
        GenerateRequest(request_id=f"{n}", prompt_token_ids=prompt, sampling=sampling)
        for n, prompt in enumerate(prompts)
    ]


def decode(
    leader: LeadingEngine, num_tokens: int, targets: list[Placement]
) -> tuple[list[list[int]], dict[str, list[float]], list[float]]:
    """(tokens, seconds of each decode step at rest and in moves, seconds of each move)."""
    for request in requests(num_tokens):
        leader.add(request)
    answers: Any = {}
    steps: dict[str, list[float]] = {"at_rest": [], "moving": []}
    moves: list[float] = []
    places = leader.engine.expert_places
    assert places is not None
    since_s, waited = 0.0, 0
    while not leader.is_drained():
        waited += not places.is_moving
        if targets and waited > 40:  # steps at rest between two moves
            leader.place_experts(targets.pop(0))
            since_s, waited = time.perf_counter(), 0
        was_moving, start_s = places.is_moving, time.perf_counter()
        events = leader.step()
        now_s = time.perf_counter()
        if was_moving and not places.is_moving:
            moves.append(now_s - since_s)
        if events and answers:  # the first ones are prompts
            steps["moving" if was_moving else "at_rest"].append(now_s - start_s)
        collect(answers, events)
    return [answers[f"{n}", 0].token_ids for n in range(NUM_SEQS)], steps, moves


def milliseconds(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    picked = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    at = {name: min(len(ordered) - 1, int(q * len(ordered))) for name, q in picked.items()}
    return {"steps": len(ordered)} | {n: round(1e3 * ordered[i], 2) for n, i in at.items()}


def lead(leader: LeadingEngine, arguments: argparse.Namespace) -> dict[str, Any]:
    start = leader.expert_placement()
    assert start is not None
    turned = tuple(slots[len(slots) // 2 :] + slots[: len(slots) // 2] for slots in start)
    decode(leader, 16, [])  # first steps are slower
    wanted, rest, _ = decode(leader, arguments.tokens, [])
    tokens, steps, moves = decode(leader, arguments.tokens, [turned, start] * (MOVES // 2))
    expert_bytes = 3 * SIZES["hidden_size"] * SIZES["moe_intermediate_size"] * 4
    moved = sum(len(slots) for slots in start)
    return {
        "equal_tokens": tokens == wanted,
        "experts_moved": moved,
        "mb_moved": round(moved * expert_bytes / 1e6),
        "step_ms_without_moves": milliseconds(rest["at_rest"]),
        "step_ms_between_moves": milliseconds(steps["at_rest"]),
        "step_ms_in_moves": milliseconds(steps["moving"]),
        "move_s": [round(move, 2) for move in moves],
    }


def work(rank: int, model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    on_gpu = arguments.device == "cuda"
    config = EngineConfig(
        model=model, dtype="float32", device=f"cuda:{rank}" if on_gpu else "cpu",
        num_kv_blocks=NUM_SEQS * (arguments.tokens + 64) // 16 + 8, expert_parallel=True,
        prefix_caching=False,
    )  # fmt: skip
    engine = Engine(config, shards=Shards())
    calls = dist.new_group(backend="gloo")
    if rank:
        follow(engine, calls)
        return {}
    leader = LeadingEngine(engine, calls)
    report = lead(leader, arguments)
    leader.stop()
    leader.let_go()
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tokens", type=int, default=600, help="of each sequence")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if "RANK" not in os.environ:  # start ourselves, as torchrun would
        return subprocess.call(
            [sys.executable, "-m", "torch.distributed.run", "--standalone",
             f"--nproc-per-node={NUM_RANKS}", *sys.argv],
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        )  # fmt: skip
    rank = int(os.environ["RANK"])
    if arguments.device == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group("nccl" if arguments.device == "cuda" else "gloo")
    folder: list[Any] = [tempfile.mkdtemp(prefix="expert-moves-") if rank == 0 else ""]
    dist.broadcast_object_list(folder)
    model = Path(folder[0])
    try:
        if rank == 0:
            save_model(model)
        dist.barrier()
        report = work(rank, str(model), arguments)
    finally:
        if rank == 0:
            for file in model.iterdir():
                file.unlink()
            model.rmdir()
    gc.collect()
    dist.destroy_process_group()
    if rank == 0:
        report = {**conditions("torch"), "device": arguments.device, "sizes": SIZES, **report}
        print(json.dumps(report, indent=2))
        if arguments.json is not None:
            write_result(arguments.json, report)
        return 0 if report["equal_tokens"] else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
