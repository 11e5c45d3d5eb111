"""Merge patches: applied to what was, they give what shall be."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from epidote_operator.kube.merge_patch import merge_patch

VALUES = st.recursive(
    st.integers() | st.text(max_size=3) | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


def applied(target: Any, patch: Any) -> Any:
    """RFC 7386, as the API server does it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = applied(result.get(key), value)
    return result


@given(OBJECTS, OBJECTS)
def test_the_patch_leads_from_one_to_the_other(before: Any, after: Any) -> None:
    assert applied(before, merge_patch(before, after)) == after


@given(OBJECTS)
def test_equal_objects_need_no_patch(value: Any) -> None:
    assert merge_patch(value, value) == {}
