"""This file is about the dashboard of a service's promise: latency, traffic, errors, queues."""

from epidote_core import metric_names as names
from epidote_operator.monitoring.panels import Json, Panel, Query, dashboard
from epidote_operator.monitoring.queries import MODEL, SERVICES, gauge, latency, rate


def promise() -> Json:
    """Latency against the SLO, traffic, errors: what clients feel."""
    e2e = latency("End to end", names.EPIDOTE_E2E_SECONDS, None)
    rows = [
        (
            "Promise",
            [
                latency("Time to first token", names.EPIDOTE_TTFT_SECONDS, "ttft"),
                latency("Time between tokens", names.EPIDOTE_ITL_SECONDS, "tpot"),
                e2e,
                Panel(
                    title="SLO attainment",
                    unit="percentunit",
                    most=1,
                    queries=(
                        Query(
                            expr=gauge(names.OPERATOR_ATTAINMENT, "service, target"),
                            legend="{{service}} {{target}}",
                        ),
                    ),
                ),
                Panel(
                    title="Requests",
                    unit="reqps",
                    stacked=True,
                    queries=(
                        Query(expr=rate(names.EPIDOTE_REQUESTS, "modality"), legend="{{modality}}"),
                    ),
                ),
                Panel(
                    title="Errors by code",
                    unit="reqps",
                    stacked=True,
                    queries=(
                        Query(expr=rate(names.EPIDOTE_REQUEST_ERRORS, "code"), legend="{{code}}"),
                    ),
                ),
            ],
        ),
        (
            "Queues and memory",
            [
                Panel(
                    title="Running and waiting",
                    queries=(
                        Query(
                            expr=gauge(names.VLLM_NUM_REQUESTS_RUNNING, "service"),
                            legend="running {{service}}",
                        ),
                        Query(
                            expr=gauge(names.VLLM_NUM_REQUESTS_WAITING, "service"),
                            legend="waiting {{service}}",
                        ),
                    ),
                ),
                Panel(
                    title="KV cache in use",
                    unit="percentunit",
                    most=1,
                    queries=(
                        Query(
                            expr=gauge(names.VLLM_KV_CACHE_USAGE, "service"), legend="{{service}}"
                        ),
                    ),
                ),
                Panel(
                    title="Prefix cache hits",
                    unit="percentunit",
                    most=1,
                    queries=(
                        Query(
                            expr=f"{rate(names.VLLM_PREFIX_CACHE_HITS, 'service')} / "
                            f"{rate(names.VLLM_PREFIX_CACHE_QUERIES, 'service')}",
                            legend="{{service}}",
                        ),
                    ),
                ),
            ],
        ),
    ]
    return dashboard("epidote-promise", "Epidote / Promise", rows, (*SERVICES, MODEL))
