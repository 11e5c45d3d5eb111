"""This file is about chat completions on the wire: events of a stream, or one body."""

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET

from epidote_core.generation import TokenChunk
from epidote_gateway.answers import Job
from epidote_gateway.logprobs import chat_logprobs
from epidote_gateway.responses import (
    AssistantMessage,
    ChatChoice,
    ChatCompletion,
    ChatLogprobs,
    Usage,
)
from epidote_gateway.writing import Collected, Writer, encode, finish_fields

_PLAIN_END = b'},"logprobs":null,"finish_reason":null}'


class ChatWriter(Writer):
    event_object = "chat.completion.chunk"

    def opening(self, job: Job, index: int) -> bytes:
        choice = b'{"index":%d,"delta":{"role":"assistant","content":""' % index + _PLAIN_END
        if self.envelope.return_token_ids:
            return self._event(choice, prompt_token_ids=job.request.prompt_token_ids)
        return self._event(choice)

    def event(self, chunk: TokenChunk, index: int, **more: Any) -> bytes:
        delta = b'{"index":%d,"delta":{' % index
        if chunk.text:
            delta += b'"content":' + encode(chunk.text)
        if (
            chunk.finish_reason is None
            and not chunk.logprobs
            and not self.envelope.return_token_ids
        ):
            return self._event(delta + _PLAIN_END, **more) if chunk.text or more else b""
        logprobs = encode(self._logprobs(chunk.logprobs))
        choice = delta + b'},"logprobs":' + logprobs + finish_fields(chunk)
        if self.envelope.return_token_ids:
            choice += b',"token_ids":' + encode(chunk.token_ids)
        return self._event(choice + b"}", **more)

    def _logprobs(self, logprobs: Sequence[Any]) -> ChatLogprobs | None:
        return chat_logprobs(logprobs, self._texts) if logprobs else None

    def whole(
        self,
        jobs: Sequence[Job],
        choices: Sequence[Sequence[Collected]],
        usage: Usage,
        timings: dict[str, Any] | None,
    ) -> bytes:
        ids = self.envelope.return_token_ids
        return encode(
            ChatCompletion(
                id=self.envelope.id,
                created=self.envelope.created,
                model=self.envelope.model,
                choices=[
                    ChatChoice(
                        index=index,
                        message=AssistantMessage(content="".join(choice.texts)),
                        finish_reason=choice.finish_reason,
                        logprobs=self._logprobs(choice.logprobs),
                        stop_reason=choice.stop_reason,
                        token_ids=choice.token_ids if ids else UNSET,
                    )
                    for index, choice in enumerate(choices[0])
                ],
                usage=usage,
                prompt_token_ids=list(jobs[0].request.prompt_token_ids) if ids else UNSET,
                epidote=timings if timings is not None else UNSET,
            )
        )
