"""Warm-up asks every op once per bucket; tuning picks the fastest candidate that is right."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from epidote_kernels import reference, tune, warm_up
from epidote_kernels.fakes import paged_batch
from epidote_kernels.paged_decode_attention import paged_decode_attention
from epidote_kernels.tilings import Tiling, known_tilings
from epidote_kernels.tuning_space import Problem, problems
from epidote_kernels.warm_up import ModelShapes

CPU = torch.device("cpu")
SHAPES = ModelShapes(
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
    hidden=32,
    inner=32,
    block_size=64,
    dtype=torch.float32,
    kv_dtype=torch.int8,
    num_experts=4,
    top_k=2,
    expert_inner=16,
    num_slots=3,
    vision_heads=1,
    vision_dim=16,
    qk_norm=True,
    media_spans=True,
)


def test_warm_up_calls_every_op_a_model_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_up, "ROWS", (1, 17))  # the interpreter is slow, and compiles nothing
    called: set[str] = set()

    def watch(name: str) -> Callable[..., Any]:
        op = getattr(warm_up.ops, name)

        def run(*arguments: Any, **keywords: Any) -> Any:
            called.add(name)
            return op(*arguments, **keywords)

        return run

    names = {
        *("rms_norm", "add_rms_norm", "silu_mul", "rope_kv_write", "moe_route"),
        "replica_slots",
        *("paged_decode_attention", "paged_prefill_attention", "vision_attention"),
    }
    for name in names:
        monkeypatch.setattr(warm_up.ops, name, watch(name))
    assert warm_up.warm_up(SHAPES, CPU) > len(names)
    assert called == names


def problem(candidates: tuple[Tiling, ...], spoil: Tiling | None = None) -> Problem:
    """Decode of a small batch; `spoil` computes something else."""

    def prepare(device: torch.device) -> tuple[Callable[[Tiling], Tensor], Tensor]:
        batch = paged_batch([20, 33], num_kv_heads=1, dim=8, device=device)
        call = (torch.randn(2, 2, 8), *vars(batch).values())

        def run(tiling: Tiling) -> Tensor:
            out = paged_decode_attention(*call, scale=0.3, tiling=tiling)
            return out + 1.0 if tiling is spoil else out

        return run, reference.paged_decode_attention(*call, scale=0.3)

    return Problem(kernel="paged_decode", key="test", candidates=candidates, prepare=prepare)


def tiling(tokens: int) -> Tiling:
    return Tiling(sizes={"BLOCK_TOKENS": tokens, "programs": 2}, num_warps=4, num_stages=2)


def test_the_fastest_candidate_that_is_right_wins() -> None:
    wrong, slow, fast, broken = tiling(16), tiling(32), tiling(64), tiling(48)
    times = {16: 1.0, 32: 5.0, 64: 3.0}
    order = iter([slow, fast])
    said: list[str] = []
    best = tune.best_of(
        problem((broken, wrong, slow, fast), spoil=wrong),
        CPU,
        lambda run: times[next(order).sizes["BLOCK_TOKENS"]],
        said.append,
    )
    assert best == (fast, 3.0)
    assert any("'BLOCK_TOKENS': 48" in line and "left out" in line for line in said)
    assert any("'BLOCK_TOKENS': 16" in line and "differs" in line for line in said)


def test_no_candidate_that_runs_leaves_no_entry() -> None:
    assert tune.best_of(problem((tiling(48),)), CPU, lambda run: 1.0, lambda text: None) is None


def test_tuning_without_a_gpu_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert tune.main([]) == 2
    assert "needs a CUDA device" in capsys.readouterr().err


def test_every_entry_of_a_table_is_a_key_that_tuning_would_write() -> None:
    tuned = {(one.kernel, one.key): one for one in problems()}
    kernels = sorted({kernel for kernel, _ in tuned})
    for kernel in kernels:
        for key, known in known_tilings(kernel):
            assert (kernel, key) in tuned
            assert set(known.sizes) == set(tuned[kernel, key].candidates[0].sizes)
    assert len(tuned) == len(list(problems()))


def test_candidates_are_all_different_and_some() -> None:
    for one in problems():
        assert one.candidates
        assert not any(a == b for a, b in itertools.combinations(one.candidates, 2))
