"""This file is about what the benches of a GPU must show: each goal, what was found, met or not.

Goals are ratios of figures of one run. One that was not measured is told as such, never as met.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Goal:
    """`found` None: not measured, `note` says why. `wanted` is the least that is enough."""

    goal: str
    wanted: float
    found: float | None
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        return None if self.found is None else self.found >= self.wanted

    def told(self) -> dict[str, Any]:
        return {**asdict(self), "is_met": self.is_met}


# name, the ops that it is about, least percent of the limit that they meet first
KERNELS = (
    ("paged decode attention, 64 × 4K, % of copy", r"paged_decode S=64 L=4096$", 90.0),
    ("paged decode attention, 64 × 32K, % of copy", r"paged_decode S=64 L=32768$", 90.0),
    ("prefill attention, 8K, % of matmul", r"paged_prefill chunk=8192 prefix=0$", 70.0),
    ("RMSNorm, % of copy", r"rms_norm T=8192$", 85.0),
    ("RMSNorm with residual, % of copy", r"add_rms_norm T=8192$", 85.0),
    ("SiLU·mul, % of copy", r"silu_mul T=8192$", 85.0),
    ("RoPE with KV write, % of copy", r"rope_kv_write T=8192$", 85.0),
    ("KV blocks gathered, scattered, copied, % of copy", r"\w+_blocks N=8192$", 85.0),
)
# name, the cases that it is about, least ratio of the best peer's time to ours
PEERS = (
    ("paged decode attention, × FlashInfer", r"decode "),
    ("prefill attention at 8K, × best SDPA", r"prefill L=8192$"),
    ("vision attention, × best SDPA", r"vision "),
    ("fused MoE, × torch._grouped_mm, every batch", r"moe "),
)


def kernel_goals(lines: Iterable[Mapping[str, Any]]) -> list[Goal]:
    """Of `bench_gpu.kernels`' lines: the slowest that a goal is about decides."""
    lines, goals = list(lines), []
    for name, pattern, wanted in KERNELS:
        about = [line for line in lines if re.match(pattern, line["op"])]
        goals.append(_slowest(name, wanted, about, "percent_of_limit", "op"))
    return goals


def engine_goals(found: Mapping[str, Mapping[str, Any]]) -> list[Goal]:
    """Of `bench_gpu.engine`'s parts."""
    decode = found.get("decode", {})
    load = found.get("mixed_load", {})
    return [
        Goal(
            goal="decode step, 8B bf16, 64 × 4K, % of byte floor",
            wanted=85.0,
            found=decode.get("percent_of_floor"),
            note=_why(decode),
        ),
        Goal(  # the goal is that there is one; its height is for the reader
            goal="mixed load, requests/s within TTFT 1 s and TPOT 50 ms",
            wanted=1.0,
            found=load.get("highest_rate_rps"),
            note=_why(load),
        ),
    ]


def peer_goals(result: Mapping[str, Any]) -> list[Goal]:
    """Of `bench_gpu_peers`' result, whatever of it there is."""
    goals, lines = [], result.get("kernels", [])
    for name, pattern in PEERS:
        about = [line for line in lines if re.match(pattern, line["case"])]
        goals.append(_slowest(name, 1.0, about, "best_peer_over_ours", "case"))
    engine, pictures = result.get("engine", {}), result.get("four_pictures", {})
    name = "transformers continuous batching"
    refused = engine.get("refused", {}).get(name, "") or _why(engine)
    rates = engine.get("tokens_per_s", {})
    goals.append(_ratio(f"tokens/s, × {name}", 3.0, rates.get("epidote"), rates.get(name), refused))
    times = pictures.get("ttft_s", {})
    goals.append(
        _ratio(
            "TTFT with four pictures, × transformers",
            1.0,
            times.get("transformers generate"),
            times.get("epidote"),
            pictures.get("refused", "") or _why(pictures),
        )
    )
    exact = result.get("greedy_float32", {})
    goals.append(
        Goal(
            goal="greedy answers in float32, share that are transformers'",
            wanted=1.0,
            found=exact.get("answers_equal_ratio"),
            note=_why(exact),
        )
    )
    return goals


def _ratio(name: str, wanted: float, over: float | None, under: float | None, why: str) -> Goal:
    found = over / under if over is not None and under is not None else None
    return Goal(goal=name, wanted=wanted, found=found, note=why)


def _why(part: Mapping[str, Any]) -> str:
    """Why a part has no figure."""
    return str(part.get("failed") or part.get("left_out", ""))


def _slowest(name: str, wanted: float, lines: list[Mapping[str, Any]], field: str, of: str) -> Goal:
    """One line without a figure leaves the goal unmeasured: the others do not speak for it."""
    missing = [line[of] for line in lines if field not in line]
    if missing or not lines:
        note = f"no figure: {', '.join(missing)}" if missing else "no such case was run"
        return Goal(goal=name, wanted=wanted, found=None, note=note)
    worst = min(lines, key=lambda line: float(line[field]))
    return Goal(goal=name, wanted=wanted, found=worst[field], note=worst[of])


def as_text(goal: Goal) -> str:
    word = {True: "met", False: "MISSED", None: "not measured"}[goal.is_met]
    found = "" if goal.found is None else f"{goal.found:.2f}"
    return f"{goal.goal:58s} wanted {goal.wanted:6.2f} found {found:>7s}  {word}  {goal.note}"
