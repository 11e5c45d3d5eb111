"""This file is about the queries that all dashboards are made of, and whom they are about.

Every query reads a metric of `metric_names.py`; `service` is put on the gateways' series by the
chart's PodMonitor. Fleet figures come from every gateway alike, hence `max` over them.
"""

from epidote_core import metric_names as names
from epidote_operator.monitoring.panels import Panel, Query, Variable

WHERE = 'namespace=~"$namespace",service=~"$service"'
RATE = "$__rate_interval"
SERVICES = (
    Variable(name="namespace", metric=names.OPERATOR_WORKERS, label="namespace"),
    Variable(
        name="service",
        metric=f'{names.OPERATOR_WORKERS}{{namespace=~"$namespace"}}',
        label="service",
    ),
)
MODEL = Variable(
    name="model_name",
    metric=f"{names.EPIDOTE_TTFT_SECONDS}_count{{{WHERE}}}",
    label="model_name",
)
QUANTILES = (0.5, 0.9, 0.99)


def latency(title: str, metric: str, target: str | None) -> Panel:
    """Quantiles of a histogram by modality, and the SLO where there is one."""
    where = f'{WHERE},model_name=~"$model_name"'
    queries = [
        Query(
            expr=f"histogram_quantile({quantile:g}, sum by (le, modality) "
            f"(rate({metric}_bucket{{{where}}}[{RATE}])))",
            legend=f"p{100 * quantile:g} {{{{modality}}}}",
        )
        for quantile in QUANTILES
    ]
    if target is not None:
        queries.append(
            Query(
                expr=f'max by (service) ({names.OPERATOR_SLO}{{{WHERE},target="{target}"}})',
                legend="SLO {{service}}",
            )
        )
    return Panel(title=title, queries=tuple(queries), unit="s")


def gauge(metric: str, by: str, how: str = "max") -> str:
    """A gauge of the chosen services, aggregated `by` some labels."""
    return f"{how} by ({by}) ({metric}{{{WHERE}}})"


def rate(metric: str, by: str) -> str:
    """A counter's growth per second, summed `by` some labels."""
    return f"sum by ({by}) (rate({metric}_total{{{WHERE}}}[{RATE}]))"
