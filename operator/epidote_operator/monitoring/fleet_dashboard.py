"""This file is about the dashboard of a fleet: workers by role, decisions, GPUs."""

from epidote_core import metric_names as names
from epidote_core.transfer_count import Transfer
from epidote_operator.monitoring.panels import Json, Panel, Query, dashboard
from epidote_operator.monitoring.queries import QUANTILES, RATE, SERVICES, WHERE, gauge, rate


def fleet() -> Json:
    """Workers by role, decisions, GPUs against the budget: what the operator does."""
    rows = [
        (
            "Workers",
            [
                Panel(
                    title="Desired and ready by role",
                    width=12,
                    queries=(
                        Query(
                            expr=gauge(names.OPERATOR_DESIRED, "role", "sum"),
                            legend="desired {{role}}",
                        ),
                        Query(
                            expr=gauge(names.OPERATOR_READY, "role", "sum"),
                            legend="ready {{role}}",
                        ),
                    ),
                ),
                Panel(
                    title="GPUs against budget",
                    width=12,
                    queries=(
                        Query(
                            expr=gauge(names.OPERATOR_GPUS, "service"), legend="used {{service}}"
                        ),
                        Query(
                            expr=gauge(names.OPERATOR_GPU_BUDGET, "service"),
                            legend="budget {{service}}",
                        ),
                    ),
                ),
                Panel(
                    title="Switching into a role",
                    queries=(
                        Query(
                            expr=gauge(names.OPERATOR_SWITCHING, "role", "sum"), legend="{{role}}"
                        ),
                    ),
                    stacked=True,
                ),
                Panel(
                    title="Role switches by outcome",
                    unit="short",
                    queries=(
                        Query(
                            expr=f"sum by (from_role, to_role, outcome) (increase("
                            f"{names.EPIDOTE_ROLE_SWITCHES}_total{{{WHERE}}}[{RATE}]))",
                            legend="{{from_role}} to {{to_role}} {{outcome}}",
                        ),
                    ),
                ),
                Panel(
                    title="Role switch time",
                    unit="s",
                    queries=(
                        Query(
                            expr="histogram_quantile(0.9, sum by (le, phase) (rate("
                            f"{names.EPIDOTE_ROLE_SWITCH_SECONDS}_bucket{{{WHERE}}}[{RATE}])))",
                            legend="p90 {{phase}}",
                        ),
                    ),
                ),
            ],
        ),
        (
            "Transfers",
            [
                Panel(
                    title=f"{what} copied between workers",
                    description="Bytes per second by transport, as the copying workers count them.",
                    unit="Bps",
                    width=12,
                    stacked=True,
                    queries=(
                        Query(
                            expr=f"max by (service, transport) (rate("
                            f"{names.EPIDOTE_TRANSFER_BYTES}_total{{{WHERE},"
                            f'kind="{kind.value}",direction="in"}}[{RATE}]))',
                            legend="{{service}} {{transport}}",
                        ),
                    ),
                )
                for what, kind in (("KV", Transfer.KV), ("Embeddings", Transfer.EMBEDDINGS))
            ],
        ),
        (
            "Experts",
            [
                Panel(
                    title="Imbalance over a worker's ranks",
                    description="Busiest rank's expert tokens over the mean, of all tokens so far "
                    "as experts lie now. Only where workers hold whole experts.",
                    width=12,
                    queries=(
                        Query(
                            expr=gauge(names.EPIDOTE_EXPERT_IMBALANCE, "service"),
                            legend="{{service}}",
                        ),
                    ),
                ),
                Panel(
                    title="Placements that came into force",
                    width=12,
                    queries=(
                        Query(
                            expr=f"max by (service) (increase({names.EPIDOTE_EXPERT_MOVES}_total"
                            f"{{{WHERE}}}[{RATE}]))",
                            legend="{{service}}",
                        ),
                    ),
                ),
            ],
        ),
        (
            "Decisions",
            [
                Panel(
                    title="Decisions by reason",
                    description="Changed decisions only: a steady fleet decides nothing new.",
                    stacked=True,
                    queries=(
                        Query(
                            expr=f"sum by (reason) (increase({names.OPERATOR_DECISIONS}_total"
                            f"{{{WHERE}}}[{RATE}]))",
                            legend="{{reason}}",
                        ),
                    ),
                ),
                Panel(
                    title="Actions",
                    stacked=True,
                    queries=(
                        Query(
                            expr=f"sum by (verb) (increase({names.OPERATOR_ACTIONS}_total"
                            f"{{{WHERE}}}[{RATE}]))",
                            legend="{{verb}}",
                        ),
                    ),
                ),
                Panel(
                    title="Conditions",
                    kind="state-timeline",
                    queries=(
                        Query(
                            expr=gauge(names.OPERATOR_CONDITION, "service, type"),
                            legend="{{service}} {{type}}",
                        ),
                    ),
                ),
            ],
        ),
        (
            "Operator",
            [
                Panel(
                    title="Tick",
                    unit="s",
                    queries=tuple(
                        Query(
                            expr=f"histogram_quantile({quantile:g}, sum by (le) (rate("
                            f"{names.OPERATOR_TICK_SECONDS}_bucket[{RATE}])))",
                            legend=f"p{100 * quantile:g}",
                        )
                        for quantile in QUANTILES
                    ),
                ),
                Panel(
                    title="Failed ticks",
                    queries=(
                        Query(
                            expr=rate(names.OPERATOR_TICK_FAILURES, "service"),
                            legend="{{service}}",
                        ),
                    ),
                ),
                Panel(title="Leader", queries=(Query(expr=f"sum({names.OPERATOR_LEADS})"),)),
            ],
        ),
    ]
    return dashboard("epidote-fleet", "Epidote / Fleet", rows, SERVICES)
