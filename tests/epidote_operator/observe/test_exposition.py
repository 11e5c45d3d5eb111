"""Scrapes: what counters gained, what histograms say, and what spoilt lines cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_operator.observe.exposition import Buckets, Scrape, growth, parse_scrape, summed

TEXT = """
# HELP epidote_arrivals_total Prompts.
# TYPE epidote_arrivals_total counter
epidote_arrivals_total{modality="text",model_name="m"} 3.0
epidote_arrivals_total{modality="image",model_name="m"} 2 1700000000
up 1
spoilt{a="1" 2
odd{a="quote \\" and \\\\ and \\n"} 1e3
nothing NaN
"""


def test_samples_are_found_by_name_and_labels() -> None:
    scrape = parse_scrape(TEXT, 5.0)
    assert scrape.at_s == 5.0
    assert scrape.total("epidote_arrivals_total") == 5.0
    assert scrape.total("epidote_arrivals_total", modality="image") == 2.0
    assert scrape.total("epidote_arrivals_total", modality="video") == 0.0
    assert scrape.by_label("epidote_arrivals_total", "modality") == {"text": 3.0, "image": 2.0}
    assert scrape.total("up") == 1.0


def test_a_spoilt_line_is_skipped_and_escapes_are_read() -> None:
    scrape = parse_scrape(TEXT, 0.0)
    assert scrape.total("spoilt") == 0.0
    assert scrape.total("odd", a='quote " and \\ and \n') == 1000.0


def test_a_counter_that_fell_has_restarted() -> None:
    before, after = parse_scrape("a 10\nb 4", 0.0), parse_scrape("a 3\nb 9\nc 2", 1.0)
    gained = growth(before, after)
    assert [gained.total(name) for name in "abc"] == [3.0, 5.0, 2.0]
    assert gained.at_s == 1.0


def test_several_gateways_add_up_and_the_oldest_dates_them() -> None:
    together = summed([parse_scrape("a 1", 3.0), parse_scrape("a 2", 2.0)])
    assert (together.total("a"), together.at_s) == (3.0, 2.0)
    assert summed([]).samples == {}


def histogram(values: list[float]) -> Buckets:
    bounds = (0.1, 0.5, 1.0, float("inf"))
    lines = [
        f'h_bucket{{le="{bound}"}} {sum(value <= bound for value in values)}' for bound in bounds
    ]
    text = "\n".join([*lines, f"h_sum {sum(values)}"]).replace("inf", "+Inf")
    return Buckets.of(parse_scrape(text, 0.0), "h")


def test_quantiles_lie_inside_their_bucket() -> None:
    buckets = histogram([0.05] * 50 + [0.3] * 50)
    assert buckets.count == 100
    assert buckets.mean == pytest.approx(0.175)
    assert 0.0 < buckets.quantile(0.25) <= 0.1 < buckets.quantile(0.75) <= 0.5


def test_beyond_the_last_bound_the_bound_is_all_that_is_known() -> None:
    assert histogram([7.0]).quantile(0.5) == 1.0
    assert histogram([7.0]).share_at_most(5.0) == 0.0


def test_nothing_observed_missed_nothing() -> None:
    empty = Buckets.of(Scrape(at_s=0.0), "h")
    assert (empty.count, empty.mean, empty.quantile(0.99), empty.share_at_most(0.1)) == (0, 0, 0, 1)


@given(st.lists(st.floats(0.001, 3.0), min_size=1), st.floats(0.0, 4.0))
def test_the_share_within_a_limit_is_right_at_bounds_and_grows(
    values: list[float], limit: float
) -> None:
    buckets = histogram(values)
    for bound in (0.1, 0.5, 1.0):
        share = sum(value <= bound for value in values) / len(values)
        assert buckets.share_at_most(bound) == pytest.approx(share)
    assert 0.0 <= buckets.share_at_most(limit) <= buckets.share_at_most(limit + 0.5) <= 1.0
