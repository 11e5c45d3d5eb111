"""This file is about who gets which role, as tables of situations and as laws."""

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_core.errors import InvalidRequest
from epidote_core.roles import Role, Stage, WorkerState
from epidote_core.worker_view import WorkerLoad, WorkerView
from epidote_workers.assignment import (
    check_counts,
    cover,
    fewest_switches,
    format_counts,
    parse_counts,
    resize,
    role_for_newcomer,
    safe_batches,
)

LETTERS = {"e": Role.ENCODE, "p": Role.PREFILL, "d": Role.DECODE, "a": Role.ALL}


def fleet(letters: str, busy: Mapping[int, int] | None = None) -> list[WorkerView]:
    """One routable worker per letter (e, p, d, a), named by place; upper case: still starting."""
    return [
        WorkerView(
            worker_id=f"w{place}",
            role=LETTERS[letter.lower()],
            state=WorkerState.STARTING if letter.isupper() else WorkerState.ROUTABLE,
            epoch=1,
            address="",
            load=WorkerLoad(num_running=(busy or {}).get(place, 0)),
        )
        for place, letter in enumerate(letters)
    ]


def counts(letters: str) -> dict[Role, int]:
    return dict(Counter(LETTERS[letter] for letter in letters))


def after(workers: list[WorkerView], switches) -> str:
    roles = {worker.worker_id: worker.role for worker in workers}
    for switch in switches:
        assert roles[switch.worker_id] is switch.from_role
        roles[switch.worker_id] = switch.to_role
    return "".join(
        sorted(next(k for k, r in LETTERS.items() if r is role) for role in roles.values())
    )


@pytest.mark.parametrize(
    ("present", "wanted", "role"),
    [
        ("", "epdd", Role.DECODE),  # all stages are bare: the largest gap
        ("e", "epdd", Role.DECODE),  # nobody decodes, and two are missing
        ("ed", "epdd", Role.PREFILL),  # a stage without anybody goes first
        ("epd", "epdd", Role.DECODE),
        ("EPD", "epdd", Role.DECODE),  # a starting worker counts as what it will be
        ("epp", "epdd", Role.DECODE),  # one decode became prefill to cover; decode is missing
        ("epdd", "epdd", Role.DECODE),  # one more than counted: the shape grows
        ("aa", "aaa", Role.ALL),
        ("", "aa", Role.ALL),
        ("", "", Role.ALL),
    ],
)
def test_newcomer_takes_what_is_most_missing(present, wanted, role):
    assert role_for_newcomer(fleet(present), counts(wanted)) is role


@pytest.mark.parametrize(
    ("present", "prefers", "role"),
    [
        ("", Role.PREFILL, Role.PREFILL),  # though decode is missing more
        ("ed", Role.DECODE, Role.DECODE),  # though nobody prefills yet: that one is on its way
        ("e", Role.ENCODE, Role.DECODE),  # there are enough of those
    ],
)
def test_newcomer_that_was_made_for_a_role_gets_it_where_it_is_missing(present, prefers, role):
    assert role_for_newcomer(fleet(present), counts("epdd"), prefers=prefers) is role


@pytest.mark.parametrize(
    ("present", "wanted", "switched"),
    [
        ("epdd", "epdd", []),
        ("epdd", "eppd", ["w2"]),
        ("epdd", "eepd", ["w2"]),
        ("eppd", "epdd", ["w1"]),
        ("epdd", "aaaa", ["w0", "w1", "w2", "w3"]),
        ("epdd", "eeep", ["w2", "w3"]),
    ],
)
def test_as_few_workers_switch_as_possible(present, wanted, switched):
    workers = fleet(present)
    switches = fewest_switches(workers, counts(wanted))
    assert sorted(switch.worker_id for switch in switches) == switched
    assert after(workers, switches) == "".join(sorted(wanted))


def test_the_idle_worker_of_a_role_is_the_one_that_moves():
    (switch,) = fewest_switches(fleet("epdd", busy={2: 5, 3: 1}), counts("eppd"))
    assert switch.worker_id == "w3"


def test_a_pair_that_keeps_its_weights_is_preferred():
    switches = fewest_switches(fleet("eepp"), counts("ddep"))
    assert {(s.from_role, s.to_role) for s in switches} == {
        (Role.ENCODE, Role.DECODE),
        (Role.PREFILL, Role.DECODE),
    }
    (first, _) = switches
    assert first.from_role is Role.PREFILL


@pytest.mark.parametrize(
    ("left", "wanted", "result"),
    [
        ("epdd", "epdd", "ddep"),  # nothing is lost
        ("epd", "epdd", "dep"),  # one decode of two is enough
        ("edd", "epdd", "dep"),
        ("pdd", "epdd", "dep"),
        ("epp", "eppd", "dep"),
        ("ed", "epdd", "ae"),  # nobody to spare: the decode worker serves all
        ("d", "epdd", "a"),
        ("e", "epd", "a"),
        ("a", "aa", "a"),
        ("", "epdd", ""),
    ],
)
def test_after_a_loss_every_stage_has_somebody(left, wanted, result):
    workers = fleet(left)
    assert after(workers, cover(workers, counts(wanted))) == result


@pytest.mark.parametrize(
    ("shape", "number", "result"),
    [
        ("epdd", 4, "epdd"),
        ("epdd", 3, "epd"),
        ("epdd", 2, "aa"),
        ("epdd", 5, "epddd"),
        ("epdd", 8, "eeppdddd"),
        ("eeeepd", 3, "epd"),
        ("aa", 4, "aaaa"),
    ],
)
def test_a_shape_keeps_its_proportions(shape, number, result):
    assert resize(counts(shape), number) == counts(result)


def test_a_swap_of_two_stages_never_empties_one_while_a_third_worker_can_help():
    workers = fleet("eppd")
    switches = fewest_switches(workers, counts("eedd"))  # prefill is given up altogether
    assert len(switches) == 2
    batches = safe_batches(fleet("epdd"), fewest_switches(fleet("epdd"), counts("eppd")))
    assert [len(batch) for batch in batches] == [1]


def test_an_unavoidable_gap_is_made_by_one_worker_at_a_time():
    workers = fleet("epd")
    switches = fewest_switches(workers, counts("aaa"))
    assert len(safe_batches(workers, switches)[0]) == 1


roles_of = st.lists(st.sampled_from("epda"), min_size=1, max_size=12).map("".join)


@given(present=roles_of, wanted=roles_of)
def test_switches_reach_the_counts_with_exactly_the_surplus(present, wanted):
    wanted = (wanted * len(present))[: len(present)]
    workers = fleet(present)
    switches = fewest_switches(workers, counts(wanted))
    assert after(workers, switches) == "".join(sorted(wanted))
    surplus = Counter(present) - Counter(wanted)
    assert len(switches) == sum(surplus.values())


@given(present=roles_of, wanted=roles_of)
def test_batches_hold_every_switch_once_and_keep_served_stages_served(present, wanted):
    wanted = (wanted * len(present))[: len(present)]
    workers = fleet(present)
    switches = fewest_switches(workers, counts(wanted))
    batches = safe_batches(workers, switches)
    assert Counter(s for batch in batches for s in batch) == Counter(switches)
    roles = {worker.worker_id: worker.role for worker in workers}
    for batch in batches:
        moving = {switch.worker_id for switch in batch}
        before = {s for s in Stage if any(r.serves(s) for r in roles.values())}
        during = {s for s in Stage if any(r.serves(s) for i, r in roles.items() if i not in moving)}
        assert before == during or len(batch) == 1
        roles |= {switch.worker_id: switch.to_role for switch in batch}


@given(left=roles_of, wanted=roles_of)
def test_cover_covers_every_stage(left, wanted):
    workers = fleet(left)
    result = after(workers, cover(workers, counts(wanted)))
    for stage in Stage:
        assert any(LETTERS[letter].serves(stage) for letter in result) or len(left) == 0


@given(shape=roles_of, number=st.integers(1, 40))
def test_resize_adds_up(shape, number):
    assert sum(resize(counts(shape), number).values()) == number


@pytest.mark.parametrize(
    "text", ["encoder=1", "encode", "encode=-1", "encode=x", "encode=1,encode=2"]
)
def test_a_bad_split_is_refused(text):
    with pytest.raises(InvalidRequest, match="roles"):
        parse_counts(text)


@pytest.mark.parametrize(
    ("text", "number", "message"),
    [
        ("encode=1,prefill=1,decode=2", 3, "adds up to 4 workers, but there are 3"),
        ("encode=1,decode=2", 3, "nobody would serve prefill"),
        ("encode=1", 1, "prefill and decode"),
        ("", 0, "nobody"),
    ],
)
def test_an_impossible_split_says_why(text, number, message):
    with pytest.raises(InvalidRequest, match=message):
        check_counts(parse_counts(text), number)


def test_counts_read_back():
    assert format_counts(parse_counts(" decode=2, encode=1,prefill=1,all=0")) == (
        "encode=1,prefill=1,decode=2"
    )
