"""Quantiles that are one of the values."""

from epidote_loadgen.measures.nearest_rank import nearest_rank


def test_quantiles_are_nearest_ranks() -> None:
    assert nearest_rank([3.0, 1.0, 2.0], 0.5) == 2.0
    assert nearest_rank(list(map(float, range(100))), 0.99) == 98.0
