"""Neighbours: exact rows, graphs, the change from one to the other, all precisions."""

import asyncio
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epidote_gateway.cache.exact_vectors import ExactVectors
from epidote_gateway.cache.graph_vectors import GraphVectors
from epidote_gateway.cache.neighbours import Neighbours
from epidote_gateway.cache.policy import Precision
from epidote_gateway.cache.protocols import Vector, Vectors

DIMENSIONS = 24
TOLERANCE = {Precision.FLOAT32: 1e-5, Precision.FLOAT16: 2e-3, Precision.INT8: 3e-2}


def unit(count: int, seed: int) -> Vectors:
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSIONS), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("make", [ExactVectors, GraphVectors])
def test_neighbours_are_those_of_the_plain_computation(
    precision: Precision, make: type[ExactVectors | GraphVectors]
) -> None:
    rows, queries = unit(200, 1), unit(20, 2)
    vectors = make(DIMENSIONS, precision)
    for key, row in enumerate(rows):
        vectors.add(key, row)
    for query in queries:
        cosines = rows @ query
        found = vectors.search(query, 5)
        assert [c for _, c in found] == sorted((c for _, c in found), reverse=True)
        for key, cosine in found:
            assert cosine == pytest.approx(cosines[key], abs=TOLERANCE[precision])
        best = np.sort(cosines)[::-1][: len(found)]
        assert found[0][1] == pytest.approx(best[0], abs=TOLERANCE[precision])


def test_nothing_is_near_nothing() -> None:
    query = unit(1, 0)[0]
    assert ExactVectors(DIMENSIONS, Precision.FLOAT32).search(query, 3) == []
    assert GraphVectors(DIMENSIONS, Precision.FLOAT32).search(query, 3) == []
    assert Neighbours(DIMENSIONS, Precision.FLOAT32).vector(1) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=60))
@settings(deadline=None)
def test_any_order_of_adding_and_removing_leaves_the_right_rows(
    steps: list[tuple[bool, int]],
) -> None:
    rows = unit(13, 3)
    vectors = ExactVectors(DIMENSIONS, Precision.FLOAT32)
    model: dict[int, Vector] = {}
    for adds, key in steps:
        if adds and key not in model:
            vectors.add(key, rows[key])
            model[key] = rows[key]
        elif not adds:
            vectors.remove(key)
            model.pop(key, None)
    assert len(vectors) == len(model)
    for key, row in model.items():
        assert key in vectors
        found = vectors.search(row, 1)[0]
        assert found == (key, pytest.approx(1.0, abs=1e-5))


@pytest.mark.parametrize("precision", Precision)
async def test_a_graph_takes_over_with_everything_that_changed_meanwhile(
    precision: Precision,
) -> None:
    rows = unit(700, 4)
    neighbours = Neighbours(DIMENSIONS, precision, exact_limit=500)
    for key in range(600):
        neighbours.add(key, rows[key])
    assert neighbours.wants_building
    building = asyncio.create_task(neighbours.build())
    await asyncio.sleep(0)
    assert not neighbours.wants_building
    for key in range(50):
        neighbours.remove(key)
    for key in range(600, 700):
        neighbours.add(key, rows[key])
    assert neighbours.search(rows[650], 1)[0][0] == 650
    await building
    assert neighbours.is_graph
    assert len(neighbours) == 650
    for key in range(50):
        assert neighbours.vector(key) is None
    found = [neighbours.search(rows[key], 1)[0][0] == key for key in range(50, 700)]
    assert np.mean(found) > 0.99
    vector = neighbours.vector(650)
    assert vector is not None
    assert float(vector @ rows[650]) == pytest.approx(1.0, abs=2e-3)


async def test_a_worn_graph_is_built_anew_and_a_small_one_becomes_exact_again() -> None:
    rows = unit(3000, 5)
    neighbours = Neighbours(DIMENSIONS, Precision.FLOAT32, exact_limit=100)
    for key in range(3000):
        neighbours.add(key, rows[key])
    await neighbours.build()
    order = list(range(3000))
    Random(1).shuffle(order)
    for key in order[:2950]:
        neighbours.remove(key)
    assert neighbours.wants_building
    await neighbours.build()
    assert not neighbours.is_graph
    assert len(neighbours) == 50
    for key in order[2950:]:
        assert neighbours.search(rows[key], 1)[0][0] == key
