"""Filter, score, pick: laws for any fleet, and the cases that the policy is about."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_core.block_hash import chain
from epidote_core.generation import Route
from epidote_core.roles import Role, Stage, WorkerState
from epidote_core.worker_view import WorkerLoad, WorkerView
from epidote_gateway.routing import (
    NobodyServes,
    Underway,
    Wanted,
    choose_route,
    unserved_stages,
)

POOL = WorkerLoad(num_kv_blocks=1000, num_free_kv_blocks=1000)


def worker(name: str, role: Role, *, state: WorkerState = WorkerState.ROUTABLE, blocks: Any = (),
           keys: Any = (), **load: Any) -> WorkerView:  # fmt: skip
    return WorkerView(
        worker_id=name,
        role=role,
        state=state,
        epoch=1,
        address=f"unix:/{name}",
        load=replace(POOL, **load),
        block_hashes=frozenset(blocks),
        media_keys=frozenset(keys),
    )


def route(*workers: WorkerView, seed: int = 0, mine: Any = None, **wanted: Any) -> Any:
    wanted = {"num_prompt_tokens": 100, **wanted}
    return choose_route(workers, Wanted(**wanted), mine=mine or {}, rng=Random(seed))


E1, E2, E3 = (worker(f"e{n}", Role.ENCODE) for n in (1, 2, 3))
P1, P2 = (worker(f"p{n}", Role.PREFILL) for n in (1, 2))
D1, D2 = (worker(f"d{n}", Role.DECODE) for n in (1, 2))
A1, A2 = (worker(f"a{n}", Role.ALL) for n in (1, 2))
BLOCKS = list(chain(list(range(100)), 16))

loads = st.builds(
    WorkerLoad,
    num_waiting=st.integers(0, 5),
    num_running=st.integers(0, 50),
    num_encoding=st.integers(0, 9),
    queued_prefill_tokens=st.integers(0, 5000),
    num_kv_blocks=st.sampled_from([0, 10, 1000]),
    num_free_kv_blocks=st.integers(0, 10),
)
views = st.builds(
    WorkerView,
    worker_id=st.uuids().map(str),
    role=st.sampled_from(Role),
    state=st.sampled_from([*WorkerState, WorkerState.ROUTABLE, WorkerState.ROUTABLE]),
    epoch=st.just(1),
    address=st.just("unix:/x"),
    load=loads,
    media_keys=st.frozensets(st.sampled_from("abcdef")),
    block_hashes=st.frozensets(st.sampled_from(BLOCKS)),
)
fleets = st.lists(views, max_size=8)


@given(
    fleet=fleets,
    keys=st.lists(st.sampled_from("abcdef"), max_size=8),
    avoided=st.sets(st.integers(0, 7)),
    seed=st.integers(0, 3),
    tokens=st.integers(1, 10_000),
)
def test_only_able_workers_are_chosen_and_every_medium_has_one(
    fleet: list[WorkerView], keys: list[str], avoided: set[int], seed: int, tokens: int
) -> None:
    avoid = {fleet[number].worker_id for number in avoided if number < len(fleet)}
    wanted: dict[str, Any] = {
        "media_keys": keys, "avoid": avoid, "block_hashes": BLOCKS, "num_prompt_tokens": tokens
    }  # fmt: skip
    found = route(*fleet, seed=seed, **wanted)
    stages = {Stage.PREFILL, Stage.DECODE} | ({Stage.ENCODE} if keys else set())
    served = {
        stage: {
            w.worker_id
            for w in fleet
            if w.state is WorkerState.ROUTABLE and w.role.serves(stage) and w.worker_id not in avoid
        }
        for stage in stages
    }
    if not all(served.values()):
        assert found == NobodyServes(
            stages=tuple(s for s in Stage if s in served and not served[s])
        )
        return
    assert isinstance(found, Route)
    assert found.prefill in served[Stage.PREFILL]
    assert found.decode in served[Stage.DECODE]
    assert [key for key, _ in found.encode] == list(dict.fromkeys(keys))
    assert all(encoder in served[Stage.ENCODE] for _, encoder in found.encode)
    assert route(*fleet, seed=seed, **wanted) == found


@given(fleet=fleets, tokens=st.integers(0, 10**6))
def test_a_longer_queue_never_attracts(fleet: list[WorkerView], tokens: int) -> None:
    found = route(*fleet, block_hashes=BLOCKS)
    if isinstance(found, NobodyServes):
        return
    longer = [
        replace(
            w, load=replace(w.load, queued_prefill_tokens=w.load.queued_prefill_tokens + tokens)
        )
        if w.worker_id != found.prefill
        else w
        for w in fleet
    ]
    unchanged = {route(*longer, block_hashes=BLOCKS, seed=seed).prefill for seed in range(3)}
    if tokens:
        assert unchanged == {found.prefill}


def test_equals_share_the_work() -> None:
    decodes = [route(P1, P2, D1, D2, seed=seed) for seed in range(40)]
    assert {r.prefill for r in decodes} == {"p1", "p2"}
    assert {r.decode for r in decodes} == {"d1", "d2"}


def test_prefill_goes_where_the_prefix_is() -> None:
    holder = replace(P2, block_hashes=frozenset(BLOCKS[:4]))
    assert all(
        route(P1, holder, D1, block_hashes=BLOCKS, seed=seed).prefill == "p2" for seed in range(5)
    )


def test_a_queue_longer_than_the_prefix_outweighs_it() -> None:
    holder = worker("p2", Role.PREFILL, blocks=BLOCKS[:4], queued_prefill_tokens=65)
    assert route(P1, holder, D1, block_hashes=BLOCKS).prefill == "p1"
    holder = worker("p2", Role.PREFILL, blocks=BLOCKS[:4], queued_prefill_tokens=63)
    assert route(P1, holder, D1, block_hashes=BLOCKS).prefill == "p2"


def test_a_prefix_with_a_hole_ends_at_the_hole() -> None:
    holed = worker("p2", Role.PREFILL, blocks=[BLOCKS[0], *BLOCKS[2:]])
    holder = worker("p1", Role.PREFILL, blocks=BLOCKS[:2])
    assert route(holder, holed, D1, block_hashes=BLOCKS).prefill == "p1"


def test_decode_goes_to_the_emptier_pool() -> None:
    full = worker("d1", Role.DECODE, num_free_kv_blocks=100)
    assert route(P1, full, D2).decode == "d2"


def test_no_room_weighs_more_than_many_sequences() -> None:
    cramped = worker("d1", Role.DECODE, num_kv_blocks=8, num_free_kv_blocks=4)
    busy = worker("d2", Role.DECODE, num_running=40)
    assert route(P1, cramped, busy).decode == "d2"


def test_what_is_underway_counts_before_it_is_reported() -> None:
    mine = {"p1": Underway(prefill_tokens=500), "d1": Underway(num_sequences=9)}
    found = route(P1, P2, D1, D2, mine=mine)
    assert (found.prefill, found.decode) == ("p2", "d2")


def test_reported_and_underway_are_not_added_up() -> None:
    reported = worker("p1", Role.PREFILL, queued_prefill_tokens=500)
    other = worker("p2", Role.PREFILL, queued_prefill_tokens=600)
    mine = {"p1": Underway(prefill_tokens=500)}
    assert route(reported, other, D1, mine=mine).prefill == "p1"


@pytest.mark.parametrize("num_encoders", [1, 2, 3])
def test_the_pictures_of_a_request_are_spread(num_encoders: int) -> None:
    found = route(*(E1, E2, E3)[:num_encoders], P1, D1, media_keys=list("abcdefgh"))
    counts = [
        [encoder for _, encoder in found.encode].count(f"e{n + 1}") for n in range(num_encoders)
    ]
    assert max(counts) - min(counts) <= 1


def test_a_cached_picture_stays_unless_its_encoder_is_swamped() -> None:
    for queue, expected in ((0, "e1"), (4, "e1"), (5, "e2")):
        holder = worker("e1", Role.ENCODE, keys="a", num_encoding=queue)
        assert route(holder, E2, P1, D1, media_keys=["a"]).encode == (("a", expected),)


def test_cached_pictures_cost_no_queue() -> None:
    holder = worker("e1", Role.ENCODE, keys="abcdefgh")
    found = route(holder, E2, P1, D1, media_keys=list("abcdefgh"))
    assert {encoder for _, encoder in found.encode} == {"e1"}


def test_one_whole_engine_does_everything_itself() -> None:
    for seed in range(10):
        found = route(A1, A2, media_keys=list("abc"), seed=seed)
        assert found.decode == found.prefill
        assert {encoder for _, encoder in found.encode} == {found.prefill}


def test_whole_engines_share_requests() -> None:
    mine = {"a1": Underway(num_sequences=4)}
    assert route(A1, A2, mine=mine).prefill == "a2"


def test_locality_gives_way_to_a_full_pool() -> None:
    full = worker("a1", Role.ALL, num_free_kv_blocks=10)
    busy = worker("a2", Role.ALL, queued_prefill_tokens=5000)
    found = route(full, busy)
    assert (found.prefill, found.decode) == ("a1", "a2")


def test_dedicated_encoders_come_before_whole_engines() -> None:
    found = route(A1, E1, media_keys=["a", "b"])
    assert {encoder for _, encoder in found.encode} == {"e1"}


def test_text_needs_no_encoder() -> None:
    assert isinstance(route(P1, D1), Route)
    assert route(P1, D1, media_keys=["a"]) == NobodyServes(stages=(Stage.ENCODE,))
    assert route() == NobodyServes(stages=(Stage.PREFILL, Stage.DECODE))


def test_stages_without_a_worker_are_told_in_order() -> None:
    assert unserved_stages([D1], tuple(Stage)) == (Stage.ENCODE, Stage.PREFILL)
    assert unserved_stages([A1], tuple(Stage)) == ()
    draining = replace(A1, state=WorkerState.DRAINING)
    assert unserved_stages([draining], [Stage.DECODE]) == (Stage.DECODE,)
