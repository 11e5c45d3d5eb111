"""The small parts on their own: merging, avoidance, counts, histograms, caches, fakes."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_core.errors import Overloaded, WorkerLost
from epidote_core.generation import (
    Choice,
    FinishReason,
    GenerateRequest,
    MediaKind,
    MediaPixels,
    Route,
    TokenChunk,
)
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_gateway.api_errors import ApiError
from epidote_gateway.avoidance import AVOID_S, Avoidance
from epidote_gateway.fakes import FakeBackend, displayable
from epidote_gateway.histograms import Counts, Histogram
from epidote_gateway.media_loading import PreparedCache
from epidote_gateway.merging import merged
from epidote_gateway.patience import Patience
from epidote_gateway.progress import Progress
from epidote_gateway.routing import Underway
from epidote_gateway.settings import GatewaySettings
from epidote_gateway.underway import UnderwayCounts


class Counting:
    """Streams that remember being closed."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    async def stream(self, name: str, count: int, fail: bool = False) -> AsyncGenerator[str, None]:
        try:
            for number in range(count):
                await asyncio.sleep(0)
                yield f"{name}{number}"
            if fail:
                raise ValueError(name)
        finally:
            self.closed.append(name)


@pytest.mark.parametrize("names", ["a", "ab", "abc"])
async def test_merged_streams_keep_their_order_and_end_together(names: str) -> None:
    source = Counting()
    found: list[tuple[int, str]] = []
    async for number, item in merged([source.stream(name, 3) for name in names]):
        found.append((number, item))
    for number, name in enumerate(names):
        assert [i for n, i in found if n == number] == [f"{name}{k}" for k in range(3)]
    assert sorted(source.closed) == list(names)


async def test_the_first_error_ends_all() -> None:
    source = Counting()
    streams = [source.stream("a", 100), source.stream("b", 1, fail=True)]
    with pytest.raises(ValueError, match="b"):
        async for _ in merged(streams):
            pass
    assert sorted(source.closed) == ["a", "b"]


@pytest.mark.parametrize("names", ["a", "ab"])
async def test_closing_early_closes_all(names: str) -> None:
    source = Counting()
    async with aclosing(merged([source.stream(name, 100) for name in names])) as items:
        async for _ in items:
            break
    assert sorted(source.closed) == list(names)


def test_a_lost_worker_is_avoided_for_a_while() -> None:
    now_s = 0.0
    avoidance = Avoidance(lambda: now_s)
    backend = FakeBackend.of({Role.DECODE: 2})
    assert avoidance.now(backend.workers()) == frozenset()
    avoidance.add("decode-0", backend.workers())
    avoidance.add("unknown", backend.workers())
    assert avoidance.now(backend.workers()) == {"decode-0", "unknown"}
    backend.put("decode-0", Role.DECODE, epoch=2)
    assert avoidance.now(backend.workers()) == {"unknown"}
    now_s = AVOID_S
    assert avoidance.now(backend.workers()) == frozenset()


def request(num_choices: int = 1) -> GenerateRequest:
    return GenerateRequest(
        request_id="r",
        prompt_token_ids=(1, 2, 3),
        sampling=SamplingParams(max_tokens=9),
        choices=tuple(Choice(index=index) for index in range(num_choices)),
    )


def test_counts_of_a_request_come_and_go() -> None:
    counts = UnderwayCounts()
    route = Route(prefill="p", decode="d", encode=(("a", "e"), ("b", "e")))
    with counts.of(request(2), route) as one, counts.of(request(), route):
        assert counts.by_worker == {
            "p": Underway(prefill_tokens=6),
            "d": Underway(num_sequences=3),
            "e": Underway(num_media=4),
        }
        one.prefilled()
        one.prefilled()
        assert counts.by_worker["p"] == Underway(prefill_tokens=3)
    assert counts.by_worker == {}


def test_counts_of_one_whole_engine_add_up() -> None:
    counts = UnderwayCounts()
    with counts.of(request(), Route(prefill="a", decode="a", encode=(("x", "a"),))):
        assert counts.by_worker == {"a": Underway(num_media=1, num_sequences=1, prefill_tokens=3)}
    assert counts.by_worker == {}


@given(
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 9), max_size=3)), max_size=20),
    st.sets(st.integers(0, 2)),
)
def test_progress_is_what_was_emitted(
    chunks: list[tuple[int, list[int]]], finished: set[int]
) -> None:
    progress = Progress(request(3))
    for index, tokens in chunks:
        progress.add([TokenChunk(index=index, token_ids=tuple(tokens), text="")])
    for index in finished:
        progress.add(
            [TokenChunk(index=index, token_ids=(), text="", finish_reason=FinishReason.STOP)]
        )
    remaining = progress.remaining()
    assert progress.is_finished is (len(finished) == 3)
    assert {choice.index for choice in remaining.choices} == {0, 1, 2} - finished
    for choice in remaining.choices:
        wanted = [token for index, tokens in chunks if index == choice.index for token in tokens]
        assert list(choice.emitted_token_ids) == wanted


@given(st.lists(st.floats(0, 100), max_size=30))
def test_a_histogram_counts_like_prometheus(values: list[float]) -> None:
    from prometheus_client import CollectorRegistry
    from prometheus_client import Histogram as Reference

    bounds = (0.5, 1.0, 10.0)
    reference = Reference("x", "x", buckets=bounds, registry=CollectorRegistry())
    ours = Histogram("x", "x", (), bounds)
    added = Counts(bounds)
    for number, value in enumerate(values):
        reference.observe(value)
        (ours.of() if number % 2 else added).observe(value)
    ours.of().add(added)
    wanted = {
        (s.name, s.labels.get("le")): s.value
        for family in reference.collect()
        for s in family.samples
        if not s.name.endswith("_created")
    }
    found = {
        (s.name, s.labels.get("le")): s.value for family in ours.collect() for s in family.samples
    }
    assert found == pytest.approx(wanted)


def pixels(size: int) -> MediaPixels:
    return MediaPixels(
        key=str(size), kind=MediaKind.IMAGE, num_frames=1, height=1, width=1, grid_thw=(1, 1, 1),
        num_tokens=1, data=bytes(size),
    )  # fmt: skip


def test_prepared_pictures_are_kept_by_last_use_within_bytes() -> None:
    cache = PreparedCache(max_bytes=10)
    cache.put(b"a", pixels(4))
    cache.put(b"b", pixels(5))
    assert cache.get(b"a")
    cache.put(b"c", pixels(3))
    assert cache.get(b"b") is None
    assert cache.get(b"a")
    cache.put(b"huge", pixels(11))
    assert cache.get(b"huge") is None
    assert cache.get(b"c")


@given(
    st.lists(st.sampled_from("abcüß→漢"), max_size=12).map("".join),
    st.lists(st.text("abü漢", min_size=1, max_size=3), max_size=3),
)
def test_what_the_pretend_model_shows_only_grows(text: str, stop: list[str]) -> None:
    data = text.encode()
    shown = ""
    for end in range(len(data) + 1):
        now, stopped_by = displayable(data[:end], stop)
        assert now.startswith(shown)
        assert all(s not in now for s in stop)
        if stopped_by is not None:
            break
        shown = now


async def test_a_pretend_worker_dies_as_told() -> None:
    backend = FakeBackend.of({Role.PREFILL: 1, Role.DECODE: 1})
    backend.die_after = {"decode-0": 2}
    got: list[Any] = []

    async def consume() -> None:
        route = Route(prefill="prefill-0", decode="decode-0")
        async for item in backend.generate(request(), route):
            got.append(item)

    with pytest.raises(WorkerLost) as lost:
        await consume()
    assert lost.value.worker_id == "decode-0"
    assert len(got) == 2
    assert backend.closed == ["r"]


class TestPatience:
    def patience(self, **settings: Any) -> Patience:
        self.now_s = 100.0
        return Patience(GatewaySettings(**settings), lambda: self.now_s)

    def test_losses_in_a_row_are_few_and_tokens_forgive_them(self) -> None:
        patience = self.patience(max_resumes=2)
        lost = WorkerLost("gone", worker_id="a")
        for _ in range(4):
            patience.lost(lost)
            patience.lost(lost)
            patience.got_tokens()
        with pytest.raises(ApiError) as caught:  # but not for ever: the ninth
            patience.lost(lost)
        assert caught.value.status == 503

    def test_the_second_worker_that_breaks_with_a_request_is_its_last(self) -> None:
        patience = self.patience()
        died = WorkerLost("the engine's thread died", worker_id="a", is_death=True)
        patience.lost(died)
        patience.got_tokens()
        for _ in range(3):
            patience.moved(WorkerLost("drains", worker_id="b", is_planned=True))
        patience.lost(WorkerLost("not connected", worker_id="c"))
        with pytest.raises(ApiError, match="2 workers broke") as caught:
            patience.lost(died)
        assert (caught.value.status, caught.value.code) == (500, "workers_broke")
        assert caught.value.kind == "server_error"

    def test_planned_moves_are_no_losses_but_do_not_go_on_for_ever(self) -> None:
        patience = self.patience(max_resumes=0, no_worker_timeout_s=10)
        moved = WorkerLost("drains", worker_id="a", is_planned=True)
        for _ in range(100):
            patience.moved(moved)
            self.now_s += 0.09
        patience.got_tokens()
        patience.moved(moved)
        for _ in range(10):
            self.now_s += 1.0
            patience.attempt()
            patience.moved(moved)
        self.now_s += 1.0
        with pytest.raises(ApiError) as caught:
            patience.moved(moved)
        assert caught.value.status == 503

    def test_the_deadline_runs_from_the_first_loss(self) -> None:
        patience = self.patience(no_worker_timeout_s=10)
        self.now_s = 105.0
        assert patience.deadline_s() == 115.0
        patience.attempt()
        patience.lost(WorkerLost("gone", worker_id="a"))
        self.now_s = 107.0
        patience.attempt()
        patience.lost(WorkerLost("gone", worker_id="b"))
        assert patience.deadline_s() == 115.0
        patience.attempt()
        self.now_s = 120.0  # a long attempt: somebody had taken it up
        patience.lost(WorkerLost("gone", worker_id="c"))
        assert patience.deadline_s() == 130.0
        patience.got_tokens()
        self.now_s = 140.0
        assert patience.deadline_s() == 150.0

    def test_a_full_fleet_is_waited_for_but_not_longer_than_told(self) -> None:
        patience = self.patience(queue_timeout_s=5)
        full = Overloaded("full", retry_after_s=60)
        assert patience.pause_when_full(full) == 0.25
        self.now_s += 4
        assert patience.pause_when_full(Overloaded("full", retry_after_s=0)) == 0.02
        self.now_s += 2
        with pytest.raises(ApiError) as caught:
            patience.pause_when_full(full)
        assert (caught.value.status, caught.value.headers["retry-after"]) == (429, "60")
