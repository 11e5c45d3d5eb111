"""This file is about the workers' reports as metrics, read when somebody scrapes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from epidote_core import metric_names as names
from epidote_core.roles import Role, WorkerState
from epidote_core.worker_view import WorkerLoad, WorkerView
from epidote_gateway.backend import Backend
from epidote_gateway.expert_endpoints import experts_of, fleet_expert_tokens, skew_by_placement
from epidote_gateway.lasting_totals import Key, LastingTotals

_COUNTED_BY_ROLE = (
    (names.EPIDOTE_WORKER_WAITING, "Requests not yet scheduled.", "num_waiting"),
    (names.EPIDOTE_WORKER_RUNNING, "Sequences in batches.", "num_running"),
    (names.EPIDOTE_WORKER_ENCODING, "Media queued or being encoded.", "num_encoding"),
    (names.EPIDOTE_WORKER_QUEUED_TOKENS, "Prompt tokens to compute.", "queued_prefill_tokens"),
)
_TRANSFERRED = (
    (names.EPIDOTE_TRANSFER_BYTES, "Bytes copied between workers.", "num_bytes"),
    (names.EPIDOTE_TRANSFER_SECONDS, "Seconds of copies between workers.", "busy_s"),
    (names.EPIDOTE_TRANSFER_COPIES, "Copies between workers.", "num_copies"),
)
_COUNTED_LIKE_VLLM = (
    (names.VLLM_PREFIX_CACHE_QUERIES, "Tokens looked up.", "prefix_query_tokens"),
    (names.VLLM_PREFIX_CACHE_HITS, "Tokens found.", "prefix_hit_tokens"),
    (names.VLLM_NUM_PREEMPTIONS, "Preemptions.", "num_preemptions"),
)


class FleetCollector(Collector):
    """Gauges and totals of `backend.workers()`, by role, and summed under vLLM's names.

    Gauges are of the workers that are there, totals also of those that were (`LastingTotals`),
    as each scrape found them: what a worker counted between the last scrape and its end is lost.
    So is everything when this process ends.
    """

    def __init__(self, backend: Backend, model: str) -> None:
        self._backend = backend
        self._model = model
        # Apart, for each starts anew by itself: experts' tokens whenever weights are loaded.
        self._loads, self._expert_tokens, self._moves = (LastingTotals() for _ in range(3))

    def collect(self) -> Iterable[Metric]:
        workers = self._backend.workers()
        # A worker that is not connected yet shows no counts, or old ones that others told of it.
        told = [w for w in workers if w.state is not WorkerState.STARTING]
        loads = self._loads.look({w.worker_id: _counts(w.load) for w in told})
        yield from self._by_role(workers)
        yield from self._transfers(loads)
        yield from self._expert_totals(told)
        yield from self._imbalance(workers)
        yield from self._like_vllm(workers, loads)

    def _by_role(self, workers: Sequence[WorkerView]) -> Iterable[Metric]:
        population = Counter((w.role, w.state) for w in workers)
        family = GaugeMetricFamily(names.EPIDOTE_WORKERS, "Workers.", labels=("role", "state"))
        for role in Role:
            for state in WorkerState:  # zeros too: a missing series is no zero to an alert
                family.add_metric((role.value, state.value), population[role, state])
        yield family
        for name, text, field in _COUNTED_BY_ROLE:
            family = GaugeMetricFamily(name, text, labels=("role",))
            for role in Role:
                family.add_metric((role.value,), _sum(workers, field, role))
            yield family
        for name, text, total, free in (
            (names.EPIDOTE_KV_BLOCKS, "KV blocks.", "num_kv_blocks", "num_free_kv_blocks"),
            (names.EPIDOTE_MEDIA_ROWS, "Media rows.", "num_media_rows", "num_free_media_rows"),
        ):
            family = GaugeMetricFamily(name, text, labels=("role", "state"))
            for role in Role:
                num_free = _sum(workers, free, role)
                family.add_metric((role.value, "free"), num_free)
                family.add_metric((role.value, "used"), _sum(workers, total, role) - num_free)
            yield family

    def _transfers(self, totals: Mapping[Key, float]) -> Iterable[Metric]:
        for name, text, _ in _TRANSFERRED:
            family = CounterMetricFamily(name, text, labels=("transport", "kind", "direction"))
            for key in sorted(totals):
                if key[0] == name:
                    family.add_metric(key[1:], float(totals[key]))
            yield family

    def _expert_totals(self, told: Sequence[WorkerView]) -> Iterable[Metric]:
        """One series an expert, some hundreds at most; `/admin/experts` has them by layer."""
        tokens = self._expert_tokens.look(
            {w.worker_id: _by_expert(w) for w in told if w.expert_tokens}
        )
        if tokens:
            counter = CounterMetricFamily(
                names.EPIDOTE_EXPERT_TOKENS, "Tokens computed by an expert.", labels=("expert",)
            )
            for number in sorted(tokens, key=lambda key: int(key[0])):
                counter.add_metric(number, float(tokens[number]))
            yield counter
        moves = self._moves.look(
            {
                w.worker_id: {(): w.experts.num_moves}
                for w in told
                if w.experts is not None and w.experts.placement
            }
        )
        if moves:
            yield CounterMetricFamily(
                names.EPIDOTE_EXPERT_MOVES,
                "Placements of experts that came into force on a worker.",
                float(moves[()]),
            )

    def _imbalance(self, workers: Sequence[WorkerView]) -> Iterable[Metric]:
        tokens, seen = fleet_expert_tokens(workers), experts_of(workers).values()
        if tokens and seen:
            yield GaugeMetricFamily(
                names.EPIDOTE_EXPERT_IMBALANCE,
                "Busiest rank's expert tokens over the mean, of the worst worker.",
                max(skew_by_placement(tokens, seen).values()),
            )

    def _like_vllm(
        self, workers: Sequence[WorkerView], totals: Mapping[Key, float]
    ) -> Iterable[Metric]:
        blocks = _sum(workers, "num_kv_blocks")
        for name, text, value in (
            (names.VLLM_NUM_REQUESTS_RUNNING, "Running.", _sum(workers, "num_running")),
            (names.VLLM_NUM_REQUESTS_WAITING, "Waiting.", _sum(workers, "num_waiting")),
            (
                names.VLLM_KV_CACHE_USAGE,
                "Share of KV blocks in use, of the fullest decoder.",
                _fullest(workers),
            ),
        ):
            gauge = GaugeMetricFamily(name, text, labels=("model_name",))
            gauge.add_metric((self._model,), value)
            yield gauge
        for name, text, _ in _COUNTED_LIKE_VLLM:
            counter = CounterMetricFamily(name, text, labels=("model_name",))
            counter.add_metric((self._model,), float(totals.get((name,), 0)))
            yield counter
        info = GaugeMetricFamily(
            names.VLLM_CACHE_CONFIG_INFO,
            "The fleet's KV cache.",
            labels=("model_name", "block_size", "num_gpu_blocks"),
        )
        info.add_metric((self._model, str(self._backend.block_size), str(int(blocks))), 1)
        yield info


def _counts(load: WorkerLoad) -> dict[Key, float]:
    """What a worker counts since its start, by metric and labels."""
    counts: dict[Key, float] = {
        (name,): getattr(load, field) for name, _, field in _COUNTED_LIKE_VLLM
    }
    for one in load.transfers:  # one for each transport, kind and direction
        for name, _, field in _TRANSFERRED:
            key = (name, one.transport, one.kind.value, one.direction.value)
            counts[key] = getattr(one, field)
    return counts


def _by_expert(worker: WorkerView) -> dict[Key, float]:
    """Tokens of all layers, by the expert's number."""
    each = zip(*worker.expert_tokens, strict=True)
    return {(str(number),): sum(layers) for number, layers in enumerate(each)}


def _fullest(workers: Sequence[WorkerView]) -> float:
    """A decoder without room stops its streams, however empty the others and prefill are."""
    return max(
        (
            1 - w.load.num_free_kv_blocks / w.load.num_kv_blocks
            for w in workers
            if w.role in (Role.DECODE, Role.ALL)
            and w.state is not WorkerState.FAILED
            and w.load.num_kv_blocks
        ),
        default=0.0,
    )


def _sum(workers: Sequence[WorkerView], field: str, role: Role | None = None) -> float:
    return float(sum(getattr(w.load, field) for w in workers if role in (None, w.role)))
