"""Small parts: worth and eviction, relaxation under pressure, break-even, controls, headers."""

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_core.generation import FinishReason, TokenChunk, TokenLogprob
from epidote_gateway.cache.answer_codec import decode_answer, encode_answer, measure
from epidote_gateway.cache.catalog import Catalog
from epidote_gateway.cache.controls import CacheField, cache_facts, header_controls
from epidote_gateway.cache.entry import Entry
from epidote_gateway.cache.eviction import Eviction, worth
from epidote_gateway.cache.fakes import FakeClock
from epidote_gateway.cache.neighbours import Neighbours
from epidote_gateway.cache.outcome import Kind, Outcome, Status, Why
from epidote_gateway.cache.policy import CachePolicy, CategorySpec, Precision, parse_policy
from epidote_gateway.cache.relaxation import SIGNAL_LIFE_S, Relaxation
from epidote_gateway.cache.selection import Selection
from epidote_gateway.cache.worthwhile import PATIENCE, HitRatios
from epidote_gateway.chat_request import ChatRequest


def entry(number: int, category: str = "default", **changes: Any) -> Entry:
    given: dict[str, Any] = {
        "entry_id": f"e{number}",
        "exact": number.to_bytes(16),
        "context": b"c",
        "after": b"",
        "category": category,
        "is_named": False,
        "tenant": "",
        "model": "m",
        "text": "",
        "media": (),
        "embedder": "",
        "created_s": 0.0,
        "saved_s": 1.0,
        "max_tokens": 10,
        "prompt_tokens": 1,
        "num_tokens": 5,
        "total_tokens": 5,
        "is_truncated": False,
        "num_bytes": 1000,
        **changes,
    }
    return Entry(**given)


@given(
    hits=st.integers(0, 1000),
    saved_s=st.floats(0, 100),
    age_s=st.floats(0, 200),
    num_bytes=st.integers(1, 10**6),
)
def test_worth_grows_with_use_and_saving_and_falls_with_age_and_size(
    hits: int, saved_s: float, age_s: float, num_bytes: int
) -> None:
    def of(**changes: Any) -> float:
        fields = {"hits": hits, "saved_s": saved_s, "num_bytes": num_bytes, **changes}
        return worth(entry(1, **fields), priority=1.0, ttl_s=100.0, now_s=age_s)

    assert of() >= 0.0
    assert of(hits=hits + 1) >= of()
    assert of(saved_s=saved_s + 1) >= of()
    assert of(num_bytes=num_bytes + 1) <= of()
    assert of(created_s=1.0) >= of()
    if age_s >= 100:
        assert of() == 0.0


def full_catalog(entries: list[Entry]) -> Catalog:
    catalog = Catalog(lambda: Neighbours(4, Precision.FLOAT32))
    for each in entries:
        catalog.add(each, None)
    return catalog


def evict_all(catalog: Catalog, spec: dict[str, Any], now_s: float = 10.0) -> list[str]:
    policy = parse_policy(spec)
    eviction = Eviction(catalog, Random(1), lambda name: policy.category(name).ttl_seconds)
    gone = []
    while eviction.is_over(policy):
        victim = eviction.victim(policy, now_s)
        assert victim is not None
        catalog.remove(victim)
        gone.append(victim.entry_id)
    return gone


def test_the_least_worth_its_bytes_goes_first() -> None:
    entries = [entry(n, saved_s=float(n)) for n in range(1, 6)]
    entries[4].num_bytes = 1_000_000
    assert evict_all(full_catalog(entries), {"limits": {"maxEntries": 3}}) == ["e5", "e1"]


def test_a_category_over_its_quota_pays_though_its_entries_are_worth_more() -> None:
    entries = [entry(n, "big", saved_s=100.0) for n in range(8)]
    entries += [entry(n, "small", saved_s=0.1) for n in range(8, 12)]
    quotas = [{"name": "big", "quotaRatio": 0.5}, {"name": "small", "quotaRatio": 0.5}]
    gone = evict_all(full_catalog(entries), {"limits": {"maxEntries": 8}, "categories": quotas})
    assert len(gone) == 4
    assert all(int(id[1:]) < 8 for id in gone)


def test_expired_entries_go_before_living_ones_and_bytes_count_too() -> None:
    entries = [entry(1, created_s=-5000.0, saved_s=99.0), entry(2), entry(3)]
    assert evict_all(full_catalog(entries), {"limits": {"maxBytes": 2500}}) == ["e1"]


def test_entries_of_a_disabled_category_go_first() -> None:
    entries = [entry(1, "off", saved_s=99.0), entry(2), entry(3)]
    spec = {"limits": {"maxEntries": 2}, "categories": [{"name": "off", "enabled": False}]}
    assert evict_all(full_catalog(entries), spec) == ["e1"]


ADAPTIVE = {
    "pressure": {"enter": 0.2, "leave": 0.05, "holdSeconds": 30, "releaseSeconds": 30},
    "categories": [
        {
            "name": "faq",
            "threshold": 0.9,
            "ttlSeconds": 100,
            "loadAdaptation": {
                "thresholdStep": 0.1,
                "thresholdFloor": 0.85,
                "ttlStretch": 4.0,
                "maxTtlSeconds": 300,
            },
        },
        {"name": "news", "threshold": 0.9, "ttlSeconds": 100, "volatile": True},
    ],
}


@pytest.fixture
def relaxed(clock: FakeClock) -> tuple[Relaxation, Callable[[str], tuple[float, float]], Any]:
    policy, relaxation = parse_policy(ADAPTIVE), Relaxation(clock)

    def bounds(name: str) -> tuple[float, float]:
        found = relaxation.bounds(policy.category(name), policy)
        return round(found.threshold, 6), found.ttl_s

    def tell(pressure: float, for_s: float) -> None:
        """Repeated as a planner does, every ten seconds."""
        for _ in range(int(for_s / 10)):
            relaxation.tell(pressure, policy)
            clock.pass_s(10)
        relaxation.tell(pressure, policy)

    return relaxation, bounds, tell


def test_pressure_relaxes_once_it_lasted_down_to_the_floors(relaxed: Any) -> None:
    _, bounds, tell = relaxed
    tell(0.3, for_s=20)
    assert bounds("faq") == (0.9, 100)
    tell(0.3, for_s=10)
    assert bounds("faq") == (0.87, pytest.approx(220))
    tell(1.0, for_s=0)
    assert bounds("faq") == (0.85, 300)


def test_volatile_categories_never_relax(relaxed: Any) -> None:
    _, bounds, tell = relaxed
    tell(1.0, for_s=60)
    assert bounds("news") == (0.9, 100)


def test_relaxing_ends_only_after_pressure_was_low_for_long(relaxed: Any) -> None:
    relaxation, bounds, tell = relaxed
    tell(1.0, for_s=40)
    tell(0.1, for_s=100)  # between leave and enter: it stays, at the value that let it in
    assert bounds("faq") == (0.88, pytest.approx(180))
    tell(0.0, for_s=20)
    assert relaxation.is_relaxed
    tell(0.1, for_s=10)  # a flicker begins the wait anew
    tell(0.0, for_s=20)
    assert relaxation.is_relaxed
    tell(0.0, for_s=10)
    assert bounds("faq") == (0.9, 100)


def test_a_short_spike_changes_nothing(relaxed: Any) -> None:
    relaxation, _, tell = relaxed
    for _ in range(10):
        tell(1.0, for_s=20)
        tell(0.0, for_s=20)
    assert not relaxation.is_relaxed


def test_a_planner_that_falls_silent_is_no_pressure(relaxed: Any, clock: FakeClock) -> None:
    _, bounds, tell = relaxed
    tell(1.0, for_s=40)
    assert bounds("faq")[0] == 0.85
    clock.pass_s(SIGNAL_LIFE_S + 1)
    bounds("faq")
    clock.pass_s(30)
    assert bounds("faq") == (0.9, 100)


def test_reports_tighten_up_to_the_limit(clock: FakeClock) -> None:
    policy = parse_policy({"feedback": {"tightenStep": 0.02, "maxTightening": 0.05}})
    relaxation = Relaxation(clock)
    category = policy.category("default")
    added = []
    for _ in range(4):
        relaxation.report(category, policy, "")
        added.append(relaxation.tightening(category, policy))
    assert added == [0.02, 0.04, 0.05, 0.05]
    assert relaxation.bounds(category, policy).threshold == pytest.approx(0.97)


def test_a_tenants_report_tightens_for_itself_an_administrators_for_all(clock: FakeClock) -> None:
    policy = parse_policy({"feedback": {"tightenStep": 0.02}})
    category, relaxation = policy.category("default"), Relaxation(clock)
    relaxation.report(category, policy, "ann")
    relaxation.report(category, policy, "")
    found = [relaxation.tightening(category, policy, tenant) for tenant in ("ann", "bob", "")]
    assert found == pytest.approx([0.04, 0.02, 0.02])


def test_what_the_store_knows_of_reports_counts_and_a_new_threshold_forgets_it(
    clock: FakeClock,
) -> None:
    def policy(threshold: float) -> CachePolicy:
        return parse_policy({"categories": [{"name": "faq", "threshold": threshold}]})

    before, relaxation = policy(0.8), Relaxation(clock)
    relaxation.take({("faq", "0.800000", ""): 0.03, ("faq", "0.700000", ""): 0.05})
    assert relaxation.tightening(before.category("faq"), before) == 0.03
    relaxation.report(before.category("faq"), before, "")
    assert relaxation.tightening(before.category("faq"), before) == pytest.approx(0.04)
    relaxation.forget_other_thresholds(policy(0.9))
    relaxation.take({("faq", "0.800000", ""): 0.03})  # not removed from the store yet
    assert relaxation.tightening(before.category("faq"), before) == 0.0
    assert relaxation.unsent == {}


@pytest.mark.parametrize("pressure", [-0.1, 1.1, float("nan")])
def test_a_pressure_outside_its_range_is_refused(clock: FakeClock, pressure: float) -> None:
    with pytest.raises(ValueError, match="pressure: must be between 0 and 1"):
        Relaxation(clock).tell(pressure, parse_policy({}))


def test_a_category_under_break_even_is_only_explored() -> None:
    ratios = HitRatios(Random(1))
    category = CategorySpec(name="x", break_even_hit_ratio=0.1, explore_ratio=0.05)
    for number in range(PATIENCE):
        assert ratios.is_worthwhile(category)
        ratios.observe("x", hit=number % 100 == 0)
    explored = sum(ratios.is_worthwhile(category) for _ in range(10_000))
    assert 400 < explored < 600
    for _ in range(300):
        ratios.observe("x", hit=True)
    assert ratios.is_worthwhile(category)


def test_what_crosses_into_bytes_comes_back_without_traces() -> None:
    logprob = TokenLogprob(token_id=5, logprob=-0.5, top=((5, -0.5), (6, -1.0)))
    chunks = [
        TokenChunk(index=0, token_ids=(5,), text="ü", logprobs=(logprob,), num_cached_tokens=3),
        TokenChunk(index=1, token_ids=(6, 7), text="x", finish_reason=FinishReason.STOP),
        TokenChunk(
            index=0, token_ids=(), text="", finish_reason=FinishReason.LENGTH, stop_reason="s"
        ),
    ]
    back = decode_answer(encode_answer(chunks))
    assert back[1:] == tuple(chunks[1:])
    assert (back[0].text, back[0].logprobs, back[0].num_cached_tokens) == ("ü", (logprob,), 0)
    measured = measure(back, 2)
    assert (measured.text, measured.num_tokens, measured.total_tokens) == ("ü", 2, 3)
    assert (measured.is_normal, measured.is_truncated) == (True, True)
    assert not measure(back, 3).is_normal


def test_a_cut_or_foreign_body_is_no_answer() -> None:
    whole = encode_answer(
        [TokenChunk(index=0, token_ids=(1,), text="x", finish_reason=FinishReason.STOP)]
    )
    unfinished = encode_answer([TokenChunk(index=0, token_ids=(1,), text="x")])
    for body in (whole[:-1], b"", b"\x00\x01", unfinished):
        with pytest.raises(ValueError, match=r"no answer|not every choice"):
            decode_answer(body)


def test_facts_survive_the_store() -> None:
    one = entry(7, media=("k",), text="süß", is_truncated=True)
    back = Entry.from_facts("e7", msgspec.json.decode(msgspec.json.encode(one.facts())))
    assert back.facts() == one.facts()
    with pytest.raises(KeyError):
        Entry.from_facts("x", {})


def test_headers_and_body_agree_on_the_stricter() -> None:
    body = msgspec.json.decode(
        b'{"messages": [{"role": "user", "content": "x"}], "user": "ann", "seed": 5,'
        b' "stream": true, "cache": {"max-age": 10, "no-cache": true, "category": "faq"}}',
        type=ChatRequest,
    )
    facts = cache_facts(body, header_controls(b'max-age="5", no-store , weird=1', b"other"))
    controls = facts.controls
    assert (controls.no_cache, controls.no_store, controls.max_age_s) == (True, True, 5.0)
    assert controls.category == "faq"
    assert (facts.user, facts.streamed, facts.fields) == ("ann", True, (("seed", 5),))
    plain = cache_facts(ChatRequest(messages=[]), header_controls(b"max-age=soon", b""))
    assert plain.controls.max_age_s is None
    assert CacheField(max_age=1.0).max_age == 1.0


@pytest.mark.parametrize(
    ("said", "no_store", "max_age_s"),
    [
        (b"no-store,max-age=9", True, 9.0),
        (b"no-store;max-age=1", True, 1.0),
        (b"max-age=9, max-age=99999", False, 9.0),
        (b"private", False, None),
    ],
)
def test_the_strictest_directive_counts(said: bytes, no_store: bool, max_age_s: float) -> None:
    controls = header_controls(said, b"")
    assert (controls.no_store, controls.max_age_s) == (no_store, max_age_s)


@pytest.mark.parametrize(
    ("fields", "user"),
    [
        ({"safety_identifier": "ann"}, "ann"),
        ({"user": "ann", "safety_identifier": "ann"}, "ann"),
        ({"user": "ann", "safety_identifier": "bo"}, "ann\nbo"),
        ({}, ""),
    ],
)
def test_both_of_openais_fields_name_an_end_user(fields: Any, user: str) -> None:
    facts = cache_facts(ChatRequest(messages=[], **fields), header_controls(b"", b""))
    assert (facts.user, facts.fields) == (user, ())


def test_the_header_says_everything_but_the_question() -> None:
    hit = Outcome(
        status=Status.HIT,
        kind=Kind.SEMANTIC,
        category="faq",
        similarity=0.91234,
        age_s=12.6,
        is_relaxed=True,
        entry_id="abc",
    )
    told = b"hit; kind=semantic; category=faq; similarity=0.912; age=13; relaxed; id=abc"
    assert hit.header() == told
    miss = Outcome(status=Status.MISS, why=Why.NOTHING_NEAR, category="default")
    assert miss.header() == b"miss; why=nothing-near; category=default"


def test_a_selection_needs_every_given_field() -> None:
    one = entry(1, "faq", tenant="a", media=("k",), created_s=0.0)
    for fields, expected in (
        ({}, True),
        ({"category": "faq", "tenant": "a"}, True),
        ({"category": "faq", "tenant": "b"}, False),
        ({"media": "k", "older_than_s": 5.0}, True),
        ({"older_than_s": 20.0}, False),
        ({"media": "other"}, False),
    ):
        assert Selection(**fields).matches(one, now_s=10.0) is expected  # type: ignore[arg-type]
