"""KV codes of two workers are copied only where they mean the same numbers."""

import math

import pytest

from epidote_workers.kv_agreement import ROUNDING, disagreement

SCALES = ((0.5, 2.0, 1e-3), (4.0, 0.25, 3.0))


@pytest.mark.parametrize("dtype", ROUNDING)
def test_what_a_step_of_bfloat16_moves_is_let_pass(dtype: str) -> None:
    theirs = tuple(tuple(scale * (1 + 2**-7) for scale in of) for of in SCALES)
    assert disagreement(SCALES, theirs, ROUNDING[dtype]) == ""


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("factor", [0.9, 1.1, 2.0, 0.0, -1.0, math.inf, math.nan])
def test_one_scale_that_differs_by_more_is_refused_with_both_numbers(
    dtype: str, factor: float
) -> None:
    theirs = (SCALES[0], (4.0, 0.25, 3.0 * factor))
    reason = disagreement(SCALES, theirs, ROUNDING[dtype])
    assert f"{3.0 * factor:.4g} there, 3 here" in reason


@pytest.mark.parametrize("theirs", [(), ((0.5, 2.0, 1e-3),), ((0.5,), (4.0,))])
def test_a_peer_that_is_cut_otherwise_or_has_no_codes_is_refused(
    theirs: tuple[tuple[float, ...], ...],
) -> None:
    assert "scales by rank there, [3, 3] here" in disagreement(SCALES, theirs, 1.0)
