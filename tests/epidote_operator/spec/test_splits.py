"""The smallest and the largest split are what trying every split finds."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from epidote_operator.spec.role_bounds import RatioSpec, RoleName
from epidote_operator.spec.splits import Range, largest_split, smallest_split

ranges = st.tuples(st.integers(0, 6), st.integers(0, 6)).map(
    lambda pair: Range(least=min(pair), most=max(pair))
)
pairs = st.sampled_from([(a, b) for a, b in product(RoleName, RoleName) if a is not b])
ratios = st.tuples(pairs, st.integers(0, 300), st.integers(1, 300)).map(
    lambda item: RatioSpec(
        numerator=item[0][0],
        denominator=item[0][1],
        min_percent=min(item[1], item[2]),
        max_percent=max(item[1], item[2]),
    )
)


def _kept(split: dict[RoleName, int], guards: list[RatioSpec]) -> bool:
    return all(
        guard.min_percent * split[guard.denominator]
        <= 100 * split[guard.numerator]
        <= guard.max_percent * split[guard.denominator]
        for guard in guards
    )


@settings(max_examples=300, deadline=None)
@given(st.fixed_dictionaries(dict.fromkeys(RoleName, ranges)), st.lists(ratios, max_size=3))
def test_both_ends_equal_an_exhaustive_search(
    bounds: dict[RoleName, Range], guards: list[RatioSpec]
) -> None:
    counts = product(*(range(item.least, item.most + 1) for item in bounds.values()))
    splits = [dict(zip(bounds, count, strict=True)) for count in counts]
    good = [split for split in splits if _kept(split, guards)]
    smallest, largest = smallest_split(bounds, guards), largest_split(bounds, guards)
    if not good:
        assert smallest is None
        assert largest is None
        return
    assert smallest == {role: min(split[role] for split in good) for role in RoleName}
    assert largest == {role: max(split[role] for split in good) for role in RoleName}
