"""This file is about measuring one prompt's answer while it passes: tokens, times, stages."""

from collections.abc import Mapping, Sequence
from typing import Any

from epidote_core.generation import StageTiming, TokenChunk
from epidote_gateway.answers import Facts, Job
from epidote_gateway.histograms import ITL_S, Counts
from epidote_gateway.metrics import Finished, Metrics
from epidote_gateway.responses import PromptTokensDetails, Usage


class Meter:
    """Times are seconds of one monotonic clock; `started_s` is when the request arrived."""

    def __init__(self, job: Job, *, started_s: float) -> None:
        self.job = job
        self.facts = Facts()
        self.prompt_tokens = len(job.request.prompt_token_ids)
        self.generation_tokens = 0
        self.cached_tokens = 0
        self.ttft_s = 0.0
        self.last_s = started_s
        self.num_unfinished = len(job.request.choices)
        self._first_index = job.request.choices[0].index
        self._started_s = started_s
        self._has_begun = self._told_ttft = False
        self._itl = Counts(ITL_S)
        self._finish_reasons: list[str] = []
        self._timings: dict[StageTiming, None] = {}  # an ordered set: choices share stages

    def on_chunks(self, chunks: Sequence[TokenChunk], now_s: float, metrics: Metrics) -> None:
        """Take note of one item of the stream; `metrics` counts its tokens at once."""
        of_first = 0
        before, had_none = self.generation_tokens, not self._has_begun
        self._has_begun = True
        for chunk in chunks:
            num_tokens = len(chunk.token_ids)
            self.generation_tokens += num_tokens
            if chunk.index == self._first_index:
                of_first += num_tokens
            if chunk.num_cached_tokens:
                # a resumed request may find its own emitted tokens cached
                cached = min(chunk.num_cached_tokens, self.prompt_tokens)
                self.cached_tokens = max(self.cached_tokens, cached)
            if chunk.finish_reason is not None:
                self.num_unfinished -= 1
                self._finish_reasons.append(chunk.finish_reason)
                self._timings.update(dict.fromkeys(chunk.timings))
        if of_first:
            if not self.ttft_s:
                self.ttft_s = now_s - self._started_s
                of_first -= 1
            if of_first:
                self._itl.observe_each((now_s - self.last_s) / of_first, of_first)
            self.last_s = now_s
        metrics.tokens(
            self.job.model,
            self.job.modality,
            prompt=self.prompt_tokens if had_none else 0,
            generated=self.generation_tokens - before,
            ttft_s=self._take_ttft(),
        )

    def _take_ttft(self) -> float:
        """The time to first token when it is known for the first time, else 0."""
        told, self._told_ttft = self._told_ttft, bool(self.ttft_s)
        return 0.0 if told else self.ttft_s

    def finished(self, now_s: float) -> Finished:
        """What the metrics want to know."""
        return Finished(
            model=self.job.model,
            modality=self.job.modality,
            prompt_tokens=self.prompt_tokens,
            num_media=len(self.job.request.media),
            media_tokens=sum(span.num_tokens for span in self.job.request.media),
            generation_tokens=self.generation_tokens,
            ttft_s=self.ttft_s,
            e2e_s=now_s - self._started_s,
            itl=self._itl,
            finish_reasons=tuple(self._finish_reasons),
            timings=tuple(self._timings),
        )

    def timings(self, now_s: float) -> dict[str, Any]:
        """The vendor extension of one prompt: who did what for how long."""
        route = self.facts.routes[-1] if self.facts.routes else None
        return {
            "route": {
                "encode": sorted({worker for _, worker in route.encode}),
                "prefill": route.prefill,
                "decode": route.decode,
            }
            if route
            else None,
            "num_resumes": self.facts.num_resumes,
            "ttft_ms": _ms(self.ttft_s),
            "total_ms": _ms(now_s - self._started_s),
            "stages": [_stage(timing) for timing in self._timings],
        }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _stage(timing: StageTiming) -> Mapping[str, Any]:
    return {
        "stage": timing.stage,
        "worker": timing.worker_id,
        "queued_ms": _ms(timing.queued_s),
        "busy_ms": _ms(timing.busy_s),
        "num_tokens": timing.num_tokens,
        "num_bytes": timing.num_bytes,
    }


def usage_of(meters: Sequence[Meter]) -> Usage:
    """The request's usage: all of its prompts together."""
    prompt = sum(meter.prompt_tokens for meter in meters)
    generated = sum(meter.generation_tokens for meter in meters)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=generated,
        total_tokens=prompt + generated,
        prompt_tokens_details=PromptTokensDetails(
            cached_tokens=sum(meter.cached_tokens for meter in meters)
        ),
    )
