"""Sampling without sorting gives the tokens that sorting gives, in Triton's interpreter."""

import math

import pytest
import torch
from torch import Tensor

from epidote_kernels import ops, reference
from epidote_kernels import sampling as kernels

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small vocabulary takes several blocks and ends inside one."""
    monkeypatch.setattr(kernels, "BLOCK", 64)
    monkeypatch.setattr(kernels, "PENALTY_BLOCK", 64)
    torch.manual_seed(3)


def parameters(rows: int, **fixed: float) -> list[Tensor]:
    """Temperature, top-k, top-p, min-p, seed, choice, position of each row; `fixed` for all."""
    drawn = {
        "temperature": torch.rand(rows) * 1.5 + 0.1,
        "top_k": torch.randint(0, 9, (rows,)).float(),
        "top_p": torch.rand(rows) * 0.9 + 0.1,
        "min_p": torch.rand(rows) * 0.2,
    }
    for name, value in fixed.items():
        drawn[name] = torch.full((rows,), float(value))
    temperature, top_k, top_p, min_p = drawn.values()
    counters = torch.randint(-(2**63), 2**63 - 1, (3, rows)).unbind()
    return [temperature, top_k.int(), top_p, min_p, *counters]


@pytest.mark.parametrize("dtype", [FP32, FP16, BF16])
@pytest.mark.parametrize("vocab", [1, 64, 130])
def test_every_filter_at_once(vocab: int, dtype: torch.dtype) -> None:
    logits = (torch.randn(3, vocab) * 3).to(dtype)
    some = parameters(3)
    assert ops.sample_tokens(logits, *some).equal(reference.sample_tokens(logits, *some))


@pytest.mark.parametrize(
    "fixed",
    [
        {"temperature": 0},
        {"top_k": 0, "top_p": 1, "min_p": 0},
        {"top_k": 1, "top_p": 1, "min_p": 0},
        {"top_k": 500, "top_p": 1, "min_p": 0},
        {"top_k": 0, "top_p": 0.5, "min_p": 0},
        {"top_k": 7, "top_p": 0.05, "min_p": 0},
        {"top_k": 0, "top_p": 0, "min_p": 0},
        {"top_k": 0, "top_p": 1, "min_p": 1},
    ],
    ids=str,
)
def test_one_filter_at_a_time(fixed: dict[str, float]) -> None:
    logits = torch.randn(4, 131) * 2
    logits[0, 5:] = -math.inf
    logits[1] = logits[1].round()  # many equals
    logits[2, 7], logits[2, 9] = 0.0, -0.0
    some = parameters(4, **fixed)
    assert ops.sample_tokens(logits, *some).equal(reference.sample_tokens(logits, *some))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize(
    ("fixed", "bad"),
    [({"top_k": 3, "top_p": 0.7}, -math.inf), ({"top_k": 0, "top_p": 1}, math.nan)],
    ids=str,
)
def test_a_row_with_nothing_to_choose_from_is_marked_and_the_others_are_not(
    fixed: dict[str, float], bad: float, temperature: float
) -> None:
    logits = torch.randn(4, 70)
    logits[0] = bad
    logits[2, 66] = math.inf if math.isinf(bad) else math.nan
    some = parameters(4, temperature=temperature, **fixed)
    got = ops.sample_tokens(logits, *some)
    assert (got == -1).tolist() == [True, False, True, False]
    assert got.equal(reference.sample_tokens(logits, *some))


def test_rows_of_a_wider_tensor_and_none_at_all() -> None:
    wide = torch.randn(3, 100)
    some = parameters(3)
    got = ops.sample_tokens(wide[:, 10:80], *some)
    assert got.equal(reference.sample_tokens(wide[:, 10:80], *some))
    assert ops.sample_tokens(wide[:0], *parameters(0)).shape == (0,)


@pytest.mark.parametrize("vocab", [1, 64, 100])
def test_penalties_touch_their_rows_alone(vocab: int) -> None:
    logits = torch.randn(4, vocab)
    counts = torch.randint(0, 3, (5, vocab), dtype=torch.int32)
    tables = (counts, torch.rand(5, vocab) < 0.3)
    rows, slots = torch.tensor([2, 0]), torch.tensor([4, 1])
    factors = (torch.tensor([1.3, 0.7]), torch.tensor([0.2, 0.0]), torch.tensor([0.0, -0.4]))
    want, got = logits.clone(), logits.clone()
    reference.apply_penalties(want, rows, slots, *tables, *factors)
    ops.apply_penalties(got, rows, slots, *tables, *factors)
    torch.testing.assert_close(got, want)
    assert got[[1, 3]].equal(logits[[1, 3]])
    assert not got[[0, 2]].equal(logits[[0, 2]])
