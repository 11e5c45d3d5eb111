"""Sums over workers that end, come back into view, and start anew."""

from hypothesis import given
from hypothesis import strategies as st

from epidote_gateway.lasting_totals import LastingTotals

A, B = ("a",), ("b",)


def test_a_worker_that_ends_leaves_what_it_had_counted() -> None:
    totals = LastingTotals()
    assert totals.look({"v": {A: 100, B: 7}, "w": {A: 5}}) == {A: 105, B: 7}
    assert totals.look({"w": {A: 6}}) == {A: 106, B: 7}
    assert totals.look({}) == {A: 106, B: 7}


def test_a_worker_that_comes_back_into_view_goes_on_where_it_was() -> None:
    totals = LastingTotals()
    totals.look({"v": {A: 100}})
    totals.look({})
    assert totals.look({"v": {A: 100}}) == {A: 100}
    totals.look({})
    assert totals.look({"v": {A: 130}}) == {A: 130}


def test_a_worker_that_starts_anew_under_its_old_name_adds_all_its_figures() -> None:
    totals = LastingTotals()
    totals.look({"v": {A: 100, B: 2}})
    assert totals.look({"v": {A: 3, B: 5}}) == {A: 103, B: 7}, "B had grown past its old figure"
    assert totals.look({"v": {A: 4, B: 5}}) == {A: 104, B: 7}
    assert totals.look({"v": {A: 4}}) == {A: 108, B: 7}, "a figure that is missing has fallen"


def test_only_the_last_that_ended_are_remembered_and_their_sum_stays() -> None:
    totals = LastingTotals(num_ended=10)
    for number in range(1000):
        totals.look({"lives": {A: 1000}, str(number): {A: 1}})
    assert totals.look({"lives": {A: 1000}}) == {A: 2000}
    assert len(totals._last) <= 11
    again = {str(number): {A: 1} for number in range(990, 1000)}
    assert totals.look({"lives": {A: 1000}, **again}) == {A: 2000}
    assert totals.look({"lives": {A: 1000}, "0": {A: 1}}) == {A: 2001}, "forgotten long ago"


LOOKS = st.lists(
    st.dictionaries(
        st.sampled_from("vwxyz"),
        st.dictionaries(
            st.sampled_from([A, B]), st.floats(0, 1e9, allow_subnormal=False), max_size=2
        ),
    ),
    max_size=12,
)


@given(looks=LOOKS)
def test_no_total_ever_falls_nor_is_less_than_what_workers_show(
    looks: list[dict[str, dict[tuple[str, ...], float]]],
) -> None:
    totals = LastingTotals(num_ended=1)
    before: dict[tuple[str, ...], float] = {}
    for workers in looks:
        now = dict(totals.look(workers))
        assert before.keys() <= now.keys()
        assert all(now[key] >= value for key, value in before.items())
        for key, total in now.items():
            shown = sum(figures.get(key, 0.0) for figures in workers.values())
            assert total >= shown * (1 - 1e-9) - 1e-6
        before = now
