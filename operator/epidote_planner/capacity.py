"""This file is about what a split of workers carries: predicted waits, TTFT misses and TPOT."""

from dataclasses import dataclass
from functools import cached_property
from math import ceil, sqrt

from epidote_planner.performance import PerformanceProfile
from epidote_planner.queueing import ENDLESS, NO_WAIT, WaitTail, both_beyond, wait_tail
from epidote_planner.workload import RequestClass

SIGMAS = 2.33  # one-sided 99 % of the number of sequences in decode
MANY = 1_000_000  # workers: stands for "as many as you like"


@dataclass(frozen=True, kw_only=True)
class StageFactors:
    """Observed over profiled time of each stage; expert skew stretches decode further."""

    encode: float = 1.0
    prefill: float = 1.0
    decode: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """Work already waiting, which arrivals alone don't show."""

    encode_s: float = 0.0  # worker-seconds of images that wait
    prefill_s: float = 0.0
    decode_sequences: float = 0.0  # running and waiting in decode, by Little's law the truth
    drain_s: float = 30.0  # time in which to work it off


@dataclass(frozen=True, kw_only=True)
class GroupModel:
    """Predictions for one modality group. Everything monotone: more workers never do worse."""

    classes: tuple[RequestClass, ...]
    profile: PerformanceProfile
    factors: StageFactors = StageFactors()
    backlog: Backlog = Backlog()

    def encode_image_s(self, item: RequestClass) -> float:
        """Seconds of one of the class's images alone on an encoder."""
        cost = self.profile.encode
        return self.factors.encode * cost.seconds(1.0, item.image_tokens / max(1.0, item.images))

    def encode_s(self, item: RequestClass, encoders: int) -> float:
        """A request's images are spread over the encoders, so more encoders are also faster."""
        if item.images <= 0.0:
            return 0.0
        rounds = ceil(item.images / max(1, min(encoders, ceil(item.images))))
        return rounds * self.encode_image_s(item)

    def prefill_s(self, item: RequestClass) -> float:
        cost = self.profile.prefill.seconds(item.prefill_tokens, item.context_tokens)
        return self.factors.prefill * cost

    @cached_property
    def encode_load(self) -> float:
        """Encoders busy on average, with the backlog's share."""
        arriving = sum(
            c.rps * c.encode_ratio * c.images * self.encode_image_s(c) for c in self.classes
        )
        return arriving + self.backlog.encode_s * self.factors.encode / self.backlog.drain_s

    @cached_property
    def prefill_load(self) -> float:
        """Prefill workers busy on average, with the backlog's share."""
        cost = self.profile.prefill
        arriving = sum(
            c.rps * self.factors.prefill * cost.work_s(c.prefill_tokens, c.context_tokens)
            for c in self.classes
        )
        return arriving + self.backlog.prefill_s * self.factors.prefill / self.backlog.drain_s

    @cached_property
    def token_rate(self) -> float:
        """Output tokens per second."""
        return sum(c.rps * c.output_tokens for c in self.classes)

    @cached_property
    def mean_context(self) -> float:
        """Tokens that a decoding sequence holds on average."""
        if self.token_rate <= 0.0:
            return 0.0
        held = sum(
            c.rps * c.output_tokens * (c.prompt_tokens + c.output_tokens / 2) for c in self.classes
        )
        return held / self.token_rate

    @cached_property
    def tpot_limit_s(self) -> float:
        """The strictest TPOT among the classes."""
        return min((c.slo.tpot_s for c in self.classes), default=float("inf"))

    @cached_property
    def sequences_per_decoder(self) -> float:
        """Sequences one decode worker may run inside the TPOT, its KV pool and its batch limit."""
        cost = self.profile.decode
        held = self.mean_context
        memory = cost.kv_tokens / max(1.0, held)
        each_s = cost.per_sequence_s + cost.per_context_token_s * held
        spare_s = self.tpot_limit_s / self.factors.decode - cost.base_s
        if spare_s <= 0.0:  # no batch is fast enough: TPOT can't be met, memory still can
            return max(1.0, min(memory, float(cost.max_sequences)))
        fast = spare_s / each_s if each_s > 0.0 else float("inf")
        return max(1.0, min(memory, float(cost.max_sequences), fast))

    @cached_property
    def decode_load(self) -> float:
        """Decode workers needed on average, at their full batch."""
        sequences = self.token_rate * self.step_s(self.sequences_per_decoder)
        return max(sequences, self.backlog.decode_sequences) / self.sequences_per_decoder

    def step_s(self, sequences: float) -> float:
        """A decode step with so many sequences on the worker."""
        cost = self.profile.decode
        return self.factors.decode * cost.seconds(sequences, sequences * self.mean_context)

    def sequences(self, decoders: int) -> float:
        """Sequences in decode on average, by Little's law; infinite where they pile up."""
        cost = self.profile.decode
        each_s = self.step_s(1.0) - self.factors.decode * cost.base_s
        busy = each_s * self.token_rate / decoders if decoders else 1.0
        if busy >= 1.0:
            return float("inf")
        return self.token_rate * self.factors.decode * cost.base_s / (1.0 - busy)

    def tpot_s(self, decoders: int) -> float:
        """TPOT at the 99 % level of the number of sequences."""
        running = self._most_sequences(decoders)
        if running == 0.0 or running == float("inf"):
            return running
        return self.step_s(running / decoders)

    def decode_fits(self, decoders: int) -> bool:
        """Whether TPOT, KV memory and batch limit hold with so many decode workers."""
        return self._most_sequences(decoders) <= self.sequences_per_decoder * decoders

    def encode_wait(self, encoders: int) -> WaitTail:
        if self.encode_load <= 0.0:
            return NO_WAIT
        if encoders <= 0:
            return ENDLESS
        mean_s, spread = self._encode_moments
        return wait_tail(encoders, load=self.encode_load, service_s=mean_s, variability=spread)

    def prefill_wait(self, prefillers: int) -> WaitTail:
        if prefillers <= 0:
            return ENDLESS
        mean_s, spread = self._prefill_moments
        return wait_tail(prefillers, load=self.prefill_load, service_s=mean_s, variability=spread)

    def ttft_miss_ratio(self, encoders: int, prefillers: int) -> float:
        """Share of the requests that could meet TTFT but are predicted not to."""
        encode_wait, prefill_wait = self.encode_wait(encoders), self.prefill_wait(prefillers)
        missed = total = 0.0
        for item in self.classes:
            if self.best_slack_s(item) < 0.0:
                continue
            total += item.rps
            slack = self._slack_s(item, encoders)
            waits = encode_wait if item.images > 0.0 else NO_WAIT
            with_media = both_beyond(waits, prefill_wait, slack)
            cached = 1.0 - item.encode_ratio if item.images > 0.0 else 0.0
            without = prefill_wait.beyond(self.best_slack_s(item)) if cached > 0.0 else 0.0
            missed += item.rps * ((1.0 - cached) * with_media + cached * without)
        return missed / total if total > 0.0 else 0.0

    @cached_property
    def hopeless_ratio(self) -> float:
        """Share of the requests whose own encode and prefill already exceed their TTFT."""
        total = sum(item.rps for item in self.classes)
        late = sum(item.rps for item in self.classes if self.best_slack_s(item) < 0.0)
        return late / total if total > 0.0 else 0.0

    @cached_property
    def allowed_miss_ratio(self) -> float:
        """What the SLO's quantile leaves after the hopeless requests, at least a quarter of it."""
        quantile = max((item.slo.quantile for item in self.classes), default=0.99)
        return max(1.0 - quantile - self.hopeless_ratio, (1.0 - quantile) / 4)

    def ttft_fits(self, encoders: int, prefillers: int) -> bool:
        if encoders <= self.encode_load and self.encode_load > 0.0:
            return False
        if prefillers <= self.prefill_load and self.prefill_load > 0.0:
            return False
        return self.ttft_miss_ratio(encoders, prefillers) <= self.allowed_miss_ratio

    def _most_sequences(self, decoders: int) -> float:
        """Sequences to be ready for: the 99 % level of the forecast, or what is there already."""
        present = self.backlog.decode_sequences
        if self.token_rate <= 0.0:
            return present if decoders or present <= 0.0 else float("inf")
        running = self.sequences(decoders)
        return max(present, running + SIGMAS * sqrt(running))

    def _slack_s(self, item: RequestClass, encoders: int) -> float:
        """What TTFT leaves for waiting."""
        moved_s = 0.0
        if item.images > 0.0:
            moved_s = self.profile.transfer.embeddings_s(item.image_tokens)
        return item.slo.ttft_s - self.encode_s(item, encoders) - moved_s - self.prefill_s(item)

    def best_slack_s(self, item: RequestClass) -> float:
        """What TTFT leaves for waiting where every image has its own encoder; < 0: hopeless."""
        return self._slack_s(item, MANY)

    @cached_property
    def _encode_moments(self) -> tuple[float, float]:
        """Mean service of an image, and variability with images arriving in requests' batches."""
        rate = busy = square = 0.0
        for item in self.classes:
            images = item.rps * item.encode_ratio * item.images
            each_s = self.encode_image_s(item)
            rate += images
            busy += images * each_s
            square += images * each_s * each_s * max(1.0, item.images)
        if rate <= 0.0:
            return 1.0, 1.0
        mean_s = busy / rate
        return mean_s, (1.0 + max(0.0, square / rate / mean_s**2 - 1.0)) / 2

    @cached_property
    def _prefill_moments(self) -> tuple[float, float]:
        rate = sum(item.rps for item in self.classes)
        if rate <= 0.0:
            return 1.0, 1.0
        times = [(item.rps / rate, self.prefill_s(item)) for item in self.classes]
        mean_s = sum(share * each for share, each in times)
        square = sum(share * each * each for share, each in times)
        return mean_s, (1.0 + max(0.0, square / mean_s**2 - 1.0)) / 2
