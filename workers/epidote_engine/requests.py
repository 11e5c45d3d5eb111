"""This file is about the requests an engine works on, and the chunks that their clients get."""

from collections.abc import Iterable
from dataclasses import replace

from epidote_core.generation import GenerateRequest, TokenChunk, TokenLogprob
from epidote_engine.config import ModelSpec
from epidote_engine.detokenizer import Vocabulary, load_vocabulary
from epidote_engine.events import FirstToken, PrefillDone
from epidote_engine.outputs import ChoiceOutput, Clock
from epidote_engine.recent_times import RecentMean
from epidote_engine.sequence import Sequence
from epidote_engine.stop import OutputText

Outputs = dict[int, ChoiceOutput]  # by choice index


class Requests:
    """Every unfinished request by its id. Times are of `time.perf_counter`, in seconds."""

    def __init__(self, spec: ModelSpec, *, max_len: int, worker_id: str) -> None:
        """`max_len`: tokens of prompt and output together; `worker_id` goes into timings."""
        self._eos_token_ids = spec.eos_token_ids
        self._vocabulary: Vocabulary | None = load_vocabulary(spec.path)
        self._max_len = max_len
        self._worker_id = worker_id
        self._work: dict[str, dict[Sequence, ChoiceOutput]] = {}  # unfinished sequences' outputs
        self.ttft, self.tpot = RecentMean(), RecentMean()

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._work

    def __len__(self) -> int:
        return len(self._work)

    def sequences(self) -> set[Sequence]:
        return {seq for work in self._work.values() for seq in work}

    def outputs_of(
        self, request: GenerateRequest, now_s: float
    ) -> tuple[Outputs, list[TokenChunk]]:
        """Outputs of the choices that go on, and last chunks of those that ended before."""
        going: Outputs = {}
        ended: list[TokenChunk] = []
        limit = self._max_len - len(request.prompt_token_ids)
        for choice in request.choices:
            text = OutputText(
                request.sampling,
                self._vocabulary.stream() if self._vocabulary is not None else None,
                eos_token_ids=self._eos_token_ids,
                max_outputs=min(request.sampling.max_tokens, limit),
            )
            output = ChoiceOutput(choice.index, text, Clock(now_s))
            last = output.replay(choice.emitted_token_ids)
            if last is None:
                going[choice.index] = output
            else:
                ended.append(last)
        return going, ended

    def open(self, request_id: str, sequences: Iterable[Sequence], outputs: Outputs) -> None:
        """Begin with a request's sequences."""
        self._work[request_id] = {seq: outputs[seq.choice.index] for seq in sequences}

    def close(self, request_id: str) -> list[Sequence]:
        """Forget a request; its unfinished sequences, none if it is unknown."""
        return list(self._work.pop(request_id, ()))

    def start(self, seq: Sequence, now_s: float) -> None:
        """It runs; only the first time counts."""
        clock = self._work[seq.request_id][seq].clock
        clock.started_s = clock.started_s or now_s

    def push(
        self, seq: Sequence, token_id: int, logprob: TokenLogprob | None, now_s: float
    ) -> TokenChunk:
        """A sequence's next token. A chunk with `finish_reason` is its last: it is forgotten."""
        work = self._work[seq.request.request_id]
        output = work[seq]
        chunk = output.push(token_id, logprob, max(seq.num_cached, 0))
        clock = output.clock
        if not clock.first_token_s:
            clock.first_token_s = now_s
            self.ttft.note(now_s - clock.added_s, now_s)
        if chunk.finish_reason is None:
            return chunk
        if output.num_tokens > 1:
            self.tpot.note((now_s - clock.first_token_s) / (output.num_tokens - 1), now_s)
        del work[seq]
        if not work:
            del self._work[seq.request_id]
        return replace(chunk, timings=output.timings(self._worker_id, seq, now_s))

    def prefilled(
        self, seq: Sequence, token_id: int, logprob: TokenLogprob | None, now_s: float
    ) -> PrefillDone:
        """Mode.PREFILL: the prompt is computed, and its first token sampled."""
        clock = self._work[seq.request_id][seq].clock
        self.ttft.note(now_s - clock.added_s, now_s)
        return PrefillDone(
            request_id=seq.request_id,
            first=FirstToken(token_id=token_id, logprob=logprob),
            num_cached_tokens=max(seq.num_cached, 0),
            timing=clock.prefill(self._worker_id, len(seq.token_ids), now_s),
        )
