"""This file is about when looking up saves more than it costs.

Without a cache a request takes T. With one it takes c + h·f + (1 - h)·T: c for looking up, f for
fetching an answer, h of the requests hit. They are equal at h* = c / (T - f).

Source: category-aware semantic caching, arXiv 2510.26835; the formula is reconstructed there from
its two quoted figures (30 ms and 5 ms against 200 ms: 15.4 %).
"""


def break_even_hit_ratio(*, search_s: float, fetch_s: float, answer_s: float) -> float:
    """h*, at most 1: where answers come faster than fetches, no cache pays.

    >>> round(break_even_hit_ratio(search_s=0.030, fetch_s=0.005, answer_s=0.200), 3)
    0.154
    >>> break_even_hit_ratio(search_s=0.002, fetch_s=0.3, answer_s=0.2)
    1.0
    """
    for name, value in (("search_s", search_s), ("fetch_s", fetch_s), ("answer_s", answer_s)):
        if not value >= 0.0:
            raise ValueError(f"{name}: must be at least 0 s, got {value}")
    saved_s = answer_s - fetch_s
    return min(1.0, search_s / saved_s) if saved_s > 0.0 else 1.0
