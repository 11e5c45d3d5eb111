"""This file is about text completions on the wire: events of a stream, or one body."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import UNSET

from epidote_core.generation import TokenChunk
from epidote_gateway.answers import Job
from epidote_gateway.logprobs import TokenTexts, text_logprobs
from epidote_gateway.responses import TextChoice, TextCompletion, TextLogprobs, Usage
from epidote_gateway.writing import Collected, Envelope, Writer, encode, finish_fields

_PLAIN_END = b',"logprobs":null,"finish_reason":null}'


class CompletionWriter(Writer):
    """`echoes`: by request id, the prompt's text to repeat before the answer."""

    event_object = "text_completion"

    def __init__(
        self, envelope: Envelope, texts: TokenTexts, echoes: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(envelope, texts)
        self._echoes = echoes or {}
        self._offsets: dict[int, int] = defaultdict(int)

    def opening(self, job: Job, index: int) -> bytes:
        echo = self._echoes.get(job.request.request_id, "")
        if not echo and not self.envelope.return_token_ids:
            return b""
        choice = b'{"index":%d,"text":' % index + encode(echo) + _PLAIN_END
        if self.envelope.return_token_ids:
            ids = encode(job.request.prompt_token_ids)
            choice = choice[:-1] + b',"prompt_token_ids":' + ids + b',"token_ids":[]}'
        return self._event(choice)

    def event(self, chunk: TokenChunk, index: int, **more: Any) -> bytes:
        choice = b'{"index":%d,"text":' % index + encode(chunk.text)
        if (
            chunk.finish_reason is None
            and not chunk.logprobs
            and not self.envelope.return_token_ids
        ):
            return self._event(choice + _PLAIN_END, **more) if chunk.text or more else b""
        logprobs = None
        if chunk.logprobs:
            logprobs, self._offsets[index] = text_logprobs(
                chunk.logprobs, self._texts, offset=self._offsets[index]
            )
        choice += b',"logprobs":' + encode(logprobs) + finish_fields(chunk)
        if self.envelope.return_token_ids:
            choice += b',"token_ids":' + encode(chunk.token_ids)
        return self._event(choice + b"}", **more)

    def whole(
        self,
        jobs: Sequence[Job],
        choices: Sequence[Sequence[Collected]],
        usage: Usage,
        timings: dict[str, Any] | None,
    ) -> bytes:
        ids = self.envelope.return_token_ids
        flat = [(job, choice) for job, group in zip(jobs, choices, strict=True) for choice in group]
        return encode(
            TextCompletion(
                id=self.envelope.id,
                created=self.envelope.created,
                model=self.envelope.model,
                choices=[
                    TextChoice(
                        index=index,
                        text=self._echoes.get(job.request.request_id, "") + "".join(choice.texts),
                        finish_reason=choice.finish_reason,
                        logprobs=self._logprobs(choice),
                        stop_reason=choice.stop_reason,
                        token_ids=choice.token_ids if ids else UNSET,
                        prompt_token_ids=list(job.request.prompt_token_ids) if ids else UNSET,
                    )
                    for index, (job, choice) in enumerate(flat)
                ],
                usage=usage,
                epidote=timings if timings is not None else UNSET,
            )
        )

    def _logprobs(self, choice: Collected) -> TextLogprobs | None:
        if not choice.logprobs:
            return None
        return text_logprobs(choice.logprobs, self._texts, offset=0)[0]
