"""This file is about the dashboard of the response cache, by category."""

from epidote_core import metric_names as names
from epidote_operator.monitoring.panels import Json, Panel, Query, dashboard
from epidote_operator.monitoring.queries import RATE, SERVICES, WHERE, gauge, rate


def cache() -> Json:
    """Hits, refusals and reported wrong answers by category: whether the cache can be trusted."""
    hits, misses = (
        rate(metric, "category")
        for metric in (names.EPIDOTE_CACHE_HITS, names.EPIDOTE_CACHE_MISSES)
    )
    rows = [
        (
            "Response cache",
            [
                Panel(
                    title="Hits by category",
                    unit="percentunit",
                    most=1,
                    queries=(Query(expr=f"{hits} / ({hits} + {misses})", legend="{{category}}"),),
                ),
                Panel(
                    title="Hits by kind",
                    unit="reqps",
                    stacked=True,
                    queries=(
                        Query(
                            expr=rate(names.EPIDOTE_CACHE_HITS, "category, kind"),
                            legend="{{category}} {{kind}}",
                        ),
                    ),
                ),
                Panel(
                    title="Wrong hits reported",
                    unit="short",
                    queries=(
                        Query(
                            expr=f"sum by (category) (increase({names.EPIDOTE_CACHE_WRONG_HITS}"
                            f"_total{{{WHERE}}}[1h]))",
                            legend="{{category}}",
                        ),
                    ),
                ),
                Panel(
                    title="Neighbours refused by a guard",
                    unit="reqps",
                    stacked=True,
                    queries=(
                        Query(
                            expr=rate(names.EPIDOTE_CACHE_REFUSALS, "reason"), legend="{{reason}}"
                        ),
                    ),
                ),
                Panel(
                    title="Threshold in force",
                    most=1,
                    queries=(
                        Query(
                            expr=gauge(names.EPIDOTE_CACHE_THRESHOLD, "category", "min"),
                            legend="{{category}}",
                        ),
                    ),
                ),
                Panel(
                    title="Pressure",
                    most=1,
                    unit="percentunit",
                    queries=(
                        Query(
                            expr=gauge(names.EPIDOTE_CACHE_PRESSURE, "service"),
                            legend="{{service}}",
                        ),
                    ),
                ),
            ],
        ),
        (
            "Worth and size",
            [
                Panel(
                    title="GPU seconds saved per second",
                    unit="s",
                    queries=(
                        Query(
                            expr=rate(names.EPIDOTE_CACHE_SAVED_SECONDS, "category"),
                            legend="{{category}}",
                        ),
                    ),
                ),
                Panel(
                    title="Bytes",
                    unit="bytes",
                    stacked=True,
                    queries=(
                        Query(
                            expr=gauge(names.EPIDOTE_CACHE_BYTES, "category", "sum"),
                            legend="{{category}}",
                        ),
                    ),
                ),
                Panel(
                    title="Look-up time",
                    unit="s",
                    queries=(
                        Query(
                            expr="histogram_quantile(0.99, sum by (le) (rate("
                            f"{names.EPIDOTE_CACHE_LOOKUP_SECONDS}_bucket{{{WHERE}}}[{RATE}])))",
                            legend="p99",
                        ),
                    ),
                ),
            ],
        ),
    ]
    return dashboard("epidote-cache", "Epidote / Response cache", rows, SERVICES)
