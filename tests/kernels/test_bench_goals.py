"""The goals of the GPU benches: each has its case, and none is met without a figure."""

import importlib.util
import pathlib
import re
import sys
from typing import Any

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "kernels" / "bench"


def module(name: str) -> Any:
    """A bench's file, which is in no package."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


goals = module("goals")
OPS = [
    "paged_decode S=64 L=4096", "paged_decode S=64 L=4096 ragged", "paged_decode S=64 L=32768",
    "paged_prefill chunk=8192 prefix=0", "rms_norm T=8192", "add_rms_norm T=8192",
    "silu_mul T=8192", "rope_kv_write T=8192", "gather_blocks N=8192", "scatter_blocks N=8192",
]  # fmt: skip


def by_name(found: list[Any]) -> dict[str, Any]:
    return {goal.goal: goal for goal in found}


def test_every_goal_has_a_case_at_real_sizes() -> None:
    sizes = next(s for s in module("bench_ops").GPU_SIZES if s.name == "qwen3-8b")
    names = [f"paged_decode S={count} L={length}" for count, length in sizes.decode]
    names += [f"paged_prefill chunk={chunk} prefix={prefix}" for chunk, prefix in sizes.prefill]
    tokens = [chunk for chunk, _ in sizes.prefill]
    for op in ("rms_norm", "add_rms_norm", "silu_mul", "rope_kv_write"):
        names += [f"{op} T={count}" for count in tokens]
    names.append(f"gather_blocks N={sizes.blocks}")
    for _, pattern, _ in goals.KERNELS:
        assert any(re.match(pattern, name) for name in names), pattern


def test_the_slowest_of_its_cases_decides() -> None:
    lines = [{"op": op, "percent_of_limit": 95.0} for op in OPS]
    assert all(goal.is_met for goal in goals.kernel_goals(lines))
    lines.append({"op": "rms_norm T=8192", "percent_of_limit": 84.9})
    missed = [goal.goal for goal in goals.kernel_goals(lines) if not goal.is_met]
    assert missed == ["RMSNorm, % of copy"]


@pytest.mark.parametrize("wrong", [True, False])
def test_a_wrong_or_missing_kernel_meets_nothing(wrong: bool) -> None:
    lines: list[dict[str, Any]] = [{"op": op, "percent_of_limit": 95.0} for op in OPS[1:]]
    if wrong:
        lines.append({"op": OPS[0], "wrong": "relative error 1"})
    found = by_name(goals.kernel_goals(lines))["paged decode attention, 64 × 4K, % of copy"]
    assert found.is_met is None
    assert ("no figure" if wrong else "no such case") in found.note


def test_parts_that_were_left_out_say_so() -> None:
    found = goals.engine_goals({"decode": {"left_out": "less than 90 s were left"}})
    assert [goal.is_met for goal in found] == [None, None]
    assert found[0].note == "less than 90 s were left"
    kept = {"decode": {"percent_of_floor": 85.0}, "mixed_load": {"highest_rate_rps": 0.0}}
    assert [goal.is_met for goal in goals.engine_goals(kept)] == [True, False]


def test_a_peer_that_refused_leaves_its_goal_open() -> None:
    result = {
        "kernels": [
            {"case": "decode S=64 L=4096", "peers": {"flashinfer": {"refused": "missing"}}},
            {"case": "prefill L=2048", "best_peer_over_ours": 0.5},
            {"case": "prefill L=8192", "best_peer_over_ours": 1.2},
            {"case": "vision 8x4096 D=72", "best_peer_over_ours": 0.9},
            {"case": "moe T=1", "best_peer_over_ours": 3.0},
            {"case": "moe T=4096 skewed", "best_peer_over_ours": 1.0},
        ],
        "engine": {
            "tokens_per_s": {"epidote": 900.0, "transformers generate": 100.0},
            "refused": {"transformers continuous batching": "RuntimeError"},
        },
        "four_pictures": {"ttft_s": {"epidote": 1.0, "transformers generate": 1.5}},
        "greedy_float32": {"answers_equal_ratio": 0.875},
    }
    met = [goal.is_met for goal in goals.peer_goals(result)]
    assert met == [None, True, False, True, None, True, False]


def test_what_failed_before_it_had_a_figure_meets_no_goal() -> None:
    found = goals.peer_goals({"engine": {"failed": "OutOfMemoryError: 2 GiB"}})
    assert all(goal.is_met is None for goal in found)
    assert "OutOfMemoryError: 2 GiB" in {goal.note for goal in found}
    assert goals.engine_goals({"decode": {"failed": "ValueError: no"}})[0].note == "ValueError: no"
