"""Open and closed loops: which request, of which class, when."""

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_loadgen.arrivals.closed_loop import ClosedLoop
from epidote_loadgen.arrivals.rate import constant
from epidote_loadgen.arrivals.rate_file import read_rate_file
from epidote_loadgen.arrivals.schedule import ArrivalStream, OpenLoop


def stream(**weights: float) -> ArrivalStream:
    return ArrivalStream(weights=weights, rate=constant(100.0), duration_s=20.0)


def test_slots_are_numbered_in_order_of_time_and_items_within_their_class() -> None:
    slots = list(OpenLoop(streams=(stream(text=1.0), stream(image=1.0)), seed=1).slots())
    assert [slot.index for slot in slots] == list(range(len(slots)))
    for earlier, later in pairwise(slots):
        assert (earlier.intended_send_s or 0.0) <= (later.intended_send_s or 0.0)
    for name in ("text", "image"):
        items = [slot.item for slot in slots if slot.class_name == name]
        assert items == list(range(len(items)))


def test_two_streams_of_one_class_share_its_numbering() -> None:
    slots = list(OpenLoop(streams=(stream(text=1.0), stream(text=1.0)), seed=1).slots())
    assert [slot.item for slot in slots] == list(range(len(slots)))


def test_streams_are_independent_of_each_other() -> None:
    slots = list(OpenLoop(streams=(stream(a=1.0), stream(b=1.0)), seed=1).slots())
    times = {
        name: [slot.intended_send_s for slot in slots if slot.class_name == name] for name in "ab"
    }
    assert times["a"][:50] != times["b"][:50]


def test_classes_come_in_the_asked_proportions() -> None:
    slots = OpenLoop(streams=(stream(text=3.0, image=1.0),), seed=2).slots()
    counts = Counter(slot.class_name for slot in slots)
    assert counts["image"] / counts.total() == pytest.approx(0.25, abs=0.03)


def test_each_reading_is_equal() -> None:
    schedule = OpenLoop(streams=(stream(text=3.0, image=1.0),), seed=2)
    assert list(schedule.slots()) == list(schedule.slots())


def test_an_endless_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="duration or a number"):
        OpenLoop(streams=(ArrivalStream(weights={"a": 1.0}, rate=constant(1.0)),))


def test_weights_that_name_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="weights"):
        ArrivalStream(weights={"a": 0.0}, rate=constant(1.0), duration_s=1.0)


@given(users=st.integers(1, 20), total=st.integers(1, 200))
def test_users_share_the_requests_and_every_index_occurs_once(users: int, total: int) -> None:
    loop = ClosedLoop(weights={"a": 1.0}, num_users=users, num_requests=total)
    indices = [
        loop.slot(user, turn).index
        for user in range(users)
        for turn in range(loop.requests_of(user) or 0)
    ]
    assert sorted(indices) == list(range(total))


def test_a_users_items_are_neighbours() -> None:
    loop = ClosedLoop(weights={"a": 1.0}, num_users=3, duration_s=10.0)
    first = loop.slot(2, 0).item
    assert [loop.slot(2, turn).item - first for turn in range(4)] == [0, 1, 2, 3]
    assert loop.slot(1, 500).item < first


def test_thinking_has_the_asked_mean_and_users_ramp_in() -> None:
    loop = ClosedLoop(weights={"a": 1.0}, num_users=10, think_s=2.0, duration_s=9.0, ramp_s=5.0)
    thoughts = [loop.think(user, turn) for user in range(10) for turn in range(1, 300)]
    assert sum(thoughts) / len(thoughts) == pytest.approx(2.0, rel=0.1)
    assert [loop.first_send_s(user) for user in (0, 9)] == [0.0, 4.5]


def test_an_endless_closed_loop_is_refused() -> None:
    with pytest.raises(ValueError, match="duration or a number"):
        ClosedLoop(weights={"a": 1.0}, num_users=1)


def test_a_rate_file_is_read_linear_or_stepwise(tmp_path: Path) -> None:
    path = tmp_path / "rate.csv"
    path.write_text("at_s,rps\n0,10\n\n10,20\n")
    assert read_rate_file(path).rps(5.0) == 15.0
    assert read_rate_file(path, stepwise=True).rps(5.0) == 10.0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: want the header at_s,rps, found 'nothing'"),
        ("time,rate\n0,1\n", "found 'time,rate'"),
        ("at_s,rps\n0,1\n5,fast\n", "line 3: want two numbers at_s,rps, found '5,fast'"),
        ("at_s,rps\n0,1,2\n", "line 2"),
        ("at_s,rps\n0,1\n9,1\n4,1\n", "ascend"),
        ("at_s,rps\n5,1\n", "first at time 0"),
    ],
)
def test_a_bad_rate_file_is_named_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "rate.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint) as caught:
        read_rate_file(path)
    assert str(path) in str(caught.value)


def test_a_rate_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.csv"):
        read_rate_file(tmp_path / "gone.csv")


def test_duration_bounds_every_send() -> None:
    for slot in OpenLoop(streams=(stream(a=1.0),), seed=9).slots():
        assert 0.0 <= (slot.intended_send_s or math.nan) < 20.0
