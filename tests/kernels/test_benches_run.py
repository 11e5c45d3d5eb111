"""The GPU benches run to their end at toy sizes, so that a first run on a GPU dies of no typo."""

import ast
import json
import os
import pathlib
import subprocess
import sys

import pytest

from epidote_kernels import ops
from epidote_planner.performance import DecodeCost, EncodeCost, PrefillCost

FOLDER = pathlib.Path(__file__).parents[2] / "kernels" / "bench"
pytestmark = pytest.mark.timeout(900)


def ran(script: str, out: pathlib.Path) -> dict:
    """What the script wrote. It has more time than it takes: nothing may be left out."""
    options = ("--device", "cpu", "--toy", "--minutes", "60")
    done = subprocess.run(
        [sys.executable, str(FOLDER / script), *options, "--out", str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "EPIDOTE_KERNELS": "torch"},
        capture_output=True,
        text=True,
        check=False,
        timeout=840,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert str(out) in done.stdout
    return json.loads(out.read_text())


@pytest.mark.slow
def test_kernels_and_engine(tmp_path: pathlib.Path) -> None:
    result = ran("bench_gpu.py", tmp_path / "all.json")
    assert result["is_toy"]
    assert result["limits"]["copy_bytes_per_s"] > 0
    assert not [line for line in result["kernels"] if "wrong" in line]
    assert all(line["percent_of_limit"] > 0 for line in result["kernels"])
    engine = result["engine"]
    assert engine["decode"]["bytes"] > engine["decode_int8"]["bytes"] > 0
    for kind in ("int8", "fp8"):  # a quarter of float32's live KV
        coded = engine[f"decode_kv_{kind}"]
        assert engine["decode"]["bytes"] > coded["bytes"] > 0
        assert coded["kv"] == {"int8": "int8", "fp8": "float8_e4m3fn"}[kind]
    experts = engine["decode_experts"]
    assert 2 <= experts["experts_asked_per_layer"] <= 6  # three tokens ask two of eight each
    assert engine["pictures"]["ttft_s"] > 0
    assert engine["mixed_load"]["highest_rate_rps"] > 0
    switched = {(line["switch"], line["weights"]) for line in engine["role_switches"]}
    assert ("encode to prefill", "release") in switched
    assert ("prefill to decode", "resident") in switched
    assert [line["switch"] for line in engine["role_switches"] if line["is_first"]] == [
        "encode to prefill"
    ] * 2  # fmt: skip
    moved = {(line["switch"], line["weights"]): line["moved_bytes"]
             for line in engine["role_switches"] if not line["is_first"]}  # fmt: skip
    assert moved["encode to prefill", "release"] > 0
    assert moved["prefill to encode", "release"] > 0
    for switch in ("encode to prefill", "prefill to decode", "decode to prefill"):
        assert moved[switch, "resident"] == 0
    assert moved["prefill to decode", "release"] == moved["decode to prefill", "release"] == 0
    assert all("wrong" not in line for line in engine["transfers"])
    assert {line["transport"] for line in engine["transfers"] if "time_s" in line} >= {
        "shared_memory", "connection", "connection int8", "connection fp8"
    }  # fmt: skip
    assert engine["compiled_tower"]["relative_difference"] < 1e-4
    goals = {goal["goal"]: goal for goal in result["goals"]}
    assert goals["decode step, 8B bf16, 64 × 4K, % of byte floor"]["found"] > 0
    assert goals["RMSNorm, % of copy"]["is_met"] is None, "toys have other sizes"
    assert result["failures"] == []


@pytest.mark.slow
def test_peers(tmp_path: pathlib.Path) -> None:
    result = ran("bench_gpu_peers.py", tmp_path / "peers.json")
    cases = {line["case"].split()[0] for line in result["kernels"]}
    assert cases == {"prefill", "decode", "vision", "moe"}
    for line in result["kernels"]:
        assert line["ours_s"] > 0
        assert all("differs" not in peer for peer in line["peers"].values()), line
    engine = result["engine"]
    assert result["four_pictures"]["first_tokens_equal_ratio"] == 1.0
    goals = {goal["goal"]: goal["found"] for goal in result["goals"]}
    assert goals["fused MoE, × torch._grouped_mm, every batch"] > 0
    assert goals["TTFT with four pictures, × transformers"] > 0
    assert goals["greedy answers in float32, share that are transformers'"] == 1.0
    # fp32 on a CPU: the same weights must give the same tokens
    assert engine["answers_equal_ratio"]["transformers generate"] == 1.0
    assert engine["answers_equal_ratio"]["transformers continuous batching"] == 1.0


@pytest.mark.slow
def test_the_profile_is_one_that_the_planner_takes(tmp_path: pathlib.Path) -> None:
    profile = ran("bench_gpu_profile.py", tmp_path / "device.json")
    assert profile["provenance"].startswith("TOY: ")
    assert EncodeCost(**profile["encode"]).seconds(1, 100) > 0
    assert PrefillCost(**profile["prefill"]).seconds(100) > 0
    assert DecodeCost(**profile["decode"]).seconds(1, 10) > 0
    assert set(profile) == {"name", "provenance", "encode", "prefill", "decode"}


def test_every_op_is_measured() -> None:
    """An op that is new must come into a bench, or be named as one that is not timed."""
    named: set[str] = set()
    for script in ("bench_ops.py", "kernel_cases.py"):
        tree = ast.parse((FOLDER / script).read_text())
        named |= {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)
                  and isinstance(n.value, str)}  # fmt: skip
        named |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert set(ops.__all__) <= named
