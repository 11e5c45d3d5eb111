"""What is nested too deeply is found without recursion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_core.nesting import too_deep


def nested(depth: int, leaf: object = 1) -> object:
    value = leaf
    for number in range(depth):
        value = [value] if number % 2 else {"a": value, "b": 2}
    return value


@pytest.mark.parametrize("leaf", [1, "x" * 100, None])
@given(depth=st.integers(0, 20), limit=st.integers(0, 20))
def test_depth_is_counted_in_lists_and_objects(leaf: object, depth: int, limit: int) -> None:
    assert too_deep(nested(depth, leaf), limit) is (depth > limit)


def test_a_million_levels_are_no_danger() -> None:
    value = nested(1_000_000)
    assert too_deep(value)
    while isinstance(value, dict | list):  # freeing it in one go would recurse in C
        value = value["a"] if isinstance(value, dict) else value[0]
