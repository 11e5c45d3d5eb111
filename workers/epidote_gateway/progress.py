"""This file is about how far each choice of a request is, so that it can continue elsewhere."""

from collections.abc import Iterable
from dataclasses import replace

from epidote_core.generation import Choice, GenerateRequest, TokenChunk


class Progress:
    """The tokens the client has, per choice. Finished choices are never asked for again."""

    def __init__(self, request: GenerateRequest) -> None:
        self._request = request
        self._tokens = {c.index: list(c.emitted_token_ids) for c in request.choices}

    def add(self, chunks: Iterable[TokenChunk]) -> None:
        for chunk in chunks:
            if chunk.finish_reason is not None:
                self._tokens.pop(chunk.index, None)
            else:
                self._tokens[chunk.index].extend(chunk.token_ids)

    @property
    def is_finished(self) -> bool:
        return not self._tokens

    def remaining(self) -> GenerateRequest:
        """The request for what is still missing."""
        return replace(
            self._request,
            choices=tuple(
                Choice(index=index, emitted_token_ids=tuple(tokens))
                for index, tokens in self._tokens.items()
            ),
        )
