"""This file is about what the gateway counts of requests; `fleet_metrics` has the workers' part."""

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from epidote_core import metric_names as names
from epidote_core.errors import WorkerLost
from epidote_core.generation import StageTiming
from epidote_gateway.histograms import (
    E2E_S,
    ITL_S,
    MEDIA,
    STAGE_S,
    TOKENS,
    TTFT_S,
    Counts,
    Histogram,
)

_MODEL = ("model_name",)
_MODALITY = ("model_name", "modality")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """One answered prompt. Latencies of the streams are of choice 0."""

    model: str
    modality: str
    prompt_tokens: int
    num_media: int
    media_tokens: int
    generation_tokens: int
    ttft_s: float
    e2e_s: float
    itl: Counts
    finish_reasons: tuple[str, ...]
    timings: tuple[StageTiming, ...]


class _Histograms(Collector):
    def __init__(self) -> None:
        self.all: list[Histogram] = []

    def collect(self) -> Iterable[Metric]:
        for histogram in self.all:
            yield from histogram.collect()


class Metrics:
    """All of one gateway process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._histograms = _Histograms()
        self.registry.register(self._histograms)
        self._ttft = self._histogram(names.VLLM_TTFT_SECONDS, "Time to first token.", TTFT_S)
        self._itl = self._histogram(names.VLLM_ITL_SECONDS, "Time between tokens.", ITL_S)
        self._tpot = self._histogram(names.VLLM_TPOT_SECONDS, "Time between tokens.", ITL_S)
        self._request_tpot = self._histogram(
            names.VLLM_REQUEST_TPOT_SECONDS, "A request's mean time per output token.", ITL_S
        )
        self._e2e = self._histogram(names.VLLM_E2E_SECONDS, "Request to last token.", E2E_S)
        self._queue = self._histogram(names.VLLM_QUEUE_SECONDS, "Waiting for prefill.", E2E_S)
        self._prompt = self._histogram(
            names.VLLM_REQUEST_PROMPT_TOKENS, "Prompt tokens of a request.", TOKENS
        )
        self._generation = self._histogram(
            names.VLLM_REQUEST_GENERATION_TOKENS, "Generated tokens of a request.", TOKENS
        )
        self._own_ttft = self._histogram(
            names.EPIDOTE_TTFT_SECONDS, "Time to first token.", TTFT_S, _MODALITY
        )
        self._own_itl = self._histogram(
            names.EPIDOTE_ITL_SECONDS, "Time between tokens.", ITL_S, _MODALITY
        )
        self._own_e2e = self._histogram(
            names.EPIDOTE_E2E_SECONDS, "Request to last token.", E2E_S, _MODALITY
        )
        self._text_tokens = self._histogram(
            names.EPIDOTE_TEXT_TOKENS, "Prompt tokens without media.", TOKENS, _MODALITY
        )
        self._media = self._histogram(names.EPIDOTE_MEDIA, "Media.", MEDIA, _MODALITY)
        self._media_tokens = self._histogram(
            names.EPIDOTE_MEDIA_TOKENS, "Tokens of a prompt's media.", TOKENS, _MODALITY
        )
        self._output_tokens = self._histogram(
            names.EPIDOTE_OUTPUT_TOKENS, "Generated tokens.", TOKENS, _MODALITY
        )
        self.arrivals = self._counter(names.EPIDOTE_ARRIVALS, "Prompts to answer.", _MODALITY)
        self.admission = self._histogram(
            names.EPIDOTE_ADMISSION_SECONDS, "Waited for admission.", STAGE_S, ()
        )
        self.media = self._histogram(
            names.EPIDOTE_MEDIA_SECONDS, "Loading a request's media.", STAGE_S, ()
        )
        self._stage_queue = self._histogram(
            names.EPIDOTE_STAGE_QUEUE_SECONDS, "Waited for a stage.", STAGE_S, ("stage",)
        )
        self._stage_busy = self._histogram(
            names.EPIDOTE_STAGE_BUSY_SECONDS, "Worked on by a stage.", STAGE_S, ("stage",)
        )
        self.switch_seconds = self._histogram(
            names.EPIDOTE_ROLE_SWITCH_SECONDS, "Role switches by phase.", STAGE_S, ("phase",)
        )
        self._prompt_tokens = self._counter(names.VLLM_PROMPT_TOKENS, "Prompt tokens.", _MODEL)
        self._generation_tokens = self._counter(
            names.VLLM_GENERATION_TOKENS, "Generated tokens.", _MODEL
        )
        self._success = self._counter(
            names.VLLM_REQUEST_SUCCESS, "Ended choices.", ("model_name", "finished_reason")
        )
        self.requests = self._counter(
            names.EPIDOTE_REQUESTS, "HTTP requests.", ("endpoint", "status")
        )
        self.errors = self._counter(names.EPIDOTE_REQUEST_ERRORS, "Errors by code.", ("code",))
        self.resumes = self._counter(
            names.EPIDOTE_RESUMES, "Continued on another worker after one was lost.", ()
        )
        self.moves = self._counter(
            names.EPIDOTE_MOVES, "Continued on another worker after a drain or a role switch.", ()
        )
        self.disconnects = self._counter(
            names.EPIDOTE_DISCONNECTS, "Clients gone before the end.", ()
        )
        self.switches = self._counter(
            names.EPIDOTE_ROLE_SWITCHES, "Role switches.", ("from_role", "to_role", "outcome")
        )
        self.in_flight = Gauge(
            names.EPIDOTE_REQUESTS_IN_FLIGHT, "Admitted requests.", registry=self.registry
        )
        Gauge(
            names.EPIDOTE_GATEWAYS, "Gateway processes in this scrape.", registry=self.registry
        ).set(1)
        self.queued = Gauge(
            names.EPIDOTE_REQUESTS_QUEUED, "Waiting for admission.", registry=self.registry
        )
        self.request_bytes = Gauge(
            names.EPIDOTE_REQUEST_BYTES, "Bodies and prepared pictures.", registry=self.registry
        )

    def _histogram(
        self, name: str, text: str, bounds: tuple[float, ...], labels: tuple[str, ...] = _MODEL
    ) -> Histogram:
        histogram = Histogram(name, text, labels, bounds)
        self._histograms.all.append(histogram)
        return histogram

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def worker_lost(self, error: WorkerLost) -> None:
        """A request goes on elsewhere."""
        (self.moves if error.is_planned else self.resumes).inc()

    def tokens(
        self, model: str, modality: str, *, prompt: int, generated: int, ttft_s: float
    ) -> None:
        """Count tokens as they come; `ttft_s` and `prompt` belong to the first, else they are 0."""
        if prompt:
            self._prompt_tokens.labels(model).inc(prompt)
        if ttft_s:
            self._ttft.of(model).observe(ttft_s)
            self._own_ttft.of(model, modality).observe(ttft_s)
        if generated:
            self._generation_tokens.labels(model).inc(generated)

    def ended(self, f: Finished, unfinished: int, reason: str) -> None:
        """Count what one prompt came to, answered or not: `unfinished` choices for `reason`."""
        self._itl.of(f.model).add(f.itl)
        self._tpot.of(f.model).add(f.itl)
        self._own_itl.of(f.model, f.modality).add(f.itl)
        reasons = (*f.finish_reasons, *[reason] * unfinished)
        for finish_reason in reasons:
            self._success.labels(f.model, finish_reason).inc()
        if not unfinished:
            self._answered(f)

    def _answered(self, f: Finished) -> None:
        self._e2e.of(f.model).observe(f.e2e_s)
        self._own_e2e.of(f.model, f.modality).observe(f.e2e_s)
        if f.generation_tokens > 1:
            mean_s = (f.e2e_s - f.ttft_s) / (f.generation_tokens - 1)
            self._request_tpot.of(f.model).observe(mean_s)
        kind = (f.model, f.modality)
        self._text_tokens.of(*kind).observe(f.prompt_tokens - f.media_tokens)
        self._media.of(*kind).observe(f.num_media)
        self._media_tokens.of(*kind).observe(f.media_tokens)
        self._output_tokens.of(*kind).observe(f.generation_tokens)
        self._prompt.of(f.model).observe(f.prompt_tokens)
        self._generation.of(f.model).observe(f.generation_tokens)
        for timing in f.timings:
            self._stage_queue.of(timing.stage).observe(timing.queued_s)
            self._stage_busy.of(timing.stage).observe(timing.busy_s)
            if timing.stage == "prefill":
                self._queue.of(f.model).observe(timing.queued_s)
