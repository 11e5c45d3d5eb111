"""This file is about what the gateway needs from its neighbours: a fleet and a prompt renderer.

`Backend` is implemented by `epidote_workers.client` and `fakes.FakeBackend`, `PromptRenderer` by
`epidote_engine.processing.PromptProcessor` and `fakes.FakeRenderer`; both structurally.
"""

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from epidote_core.expert_placement import Placement
from epidote_core.generation import GenerateRequest, MediaPixels, MediaSpan, Route, TokenChunk
from epidote_core.roles import Role
from epidote_core.worker_view import WorkerView


class TokenStream(Protocol):
    """The answer to one `Backend.generate`; an async generator satisfies it.

    Each item is a non-empty list of every chunk that was waiting, oldest first. It ends after the
    last choice's chunk with a `finish_reason`. `aclose` (also in mid-stream, also twice) cancels
    the request on every stage and returns soon, without waiting for the workers. The gateway
    closes right after the last `finish_reason`: then there is nothing to cancel.
    """

    def __aiter__(self) -> AsyncIterator[list[TokenChunk]]: ...
    def __anext__(self) -> Awaitable[list[TokenChunk]]: ...
    def aclose(self) -> Awaitable[None]: ...


@dataclass(frozen=True, kw_only=True)
class SwitchOutcome:
    """How one worker's role switch ended; durations on the worker's clock.

    `ok` False: rolled back, the worker serves `from_role` again (or failed: `message` says so).
    """

    worker_id: str
    from_role: Role
    to_role: Role
    ok: bool
    epoch: int
    drain_s: float = 0.0  # until the old role's work was gone
    switch_s: float = 0.0  # weights and pools
    verify_s: float = 0.0
    message: str = ""


class Backend(Protocol):
    """The fleet. Every call has the implementation's own deadline; none blocks the event loop.

    Errors are those of `epidote_core.errors`: `WorkerLost`, `Overloaded`, `InvalidRequest`.
    """

    @property
    def block_size(self) -> int:
        """Tokens in one KV block: what `WorkerView.block_hashes` are hashes of."""
        ...

    @property
    def wanted_workers(self) -> int | None:
        """How many workers there shall be; None: nobody here decides that, or it is not known."""
        ...

    def workers(self) -> Sequence[WorkerView]:
        """Every known worker in every state, from memory: called once or more a request."""
        ...

    def generate(self, request: GenerateRequest, route: Route) -> TokenStream:
        """Start (or continue, where choices carry emitted tokens) a request on `route`.

        Errors surface from the iterator: `WorkerLost(worker_id)` for whichever stage broke (the
        gateway routes again around that worker with the tokens received so far), `Overloaded`
        (nothing was started), `InvalidRequest`. Tokens lost with a worker were never yielded.
        """
        ...

    async def encode(self, worker_id: str, pixels: MediaPixels, *, request_id: str) -> None:
        """Hand a medium to an encoder; returns once it accepted it, not when it is encoded.

        The gateway calls this for every medium of a request, also if the worker's view lists the
        key (views lag): the implementation may skip sending bytes that the worker says it has.
        Cancelling the call, or closing the request's stream, gives the work up.
        """
        ...

    async def set_roles(self, roles: Mapping[Role, int]) -> Sequence[SwitchOutcome]:
        """Switch as few workers as possible until the roles are counted like `roles`.

        Raises `InvalidRequest` if the counts don't add up to the number of workers.
        """
        ...

    async def switch_role(self, worker_id: str, role: Role, *, deadline_s: float) -> SwitchOutcome:
        """Drain, switch, verify one worker; rolled back if not drained within `deadline_s`.

        Raises `InvalidRequest(field="worker_id")` for an unknown worker.
        """
        ...

    async def set_num_workers(self, num_workers: int) -> None:
        """Ask for this many workers; returns when asked, not when they run."""
        ...

    async def place_experts(self, placement: Placement) -> None:
        """Have every worker whose experts lie in slots take this placement, later ones as well.

        Returns when asked; `WorkerView.experts` says how far each one is. Idempotent.
        """
        ...

    async def conservation(self) -> Mapping[str, Sequence[str] | None]:
        """Per living worker what its bookkeeping of blocks, rows, leases finds wrong.

        None: it did not answer.
        """
        ...


class RenderedPrompt(Protocol):
    """A prompt with every media placeholder expanded."""

    @property
    def token_ids(self) -> tuple[int, ...]: ...
    @property
    def media(self) -> tuple[MediaSpan, ...]: ...


class PromptRenderer(Protocol):
    """Text and pictures to tokens, as the model wants them. Called from several threads.

    Raises `InvalidRequest` for what a client did wrong (template error, an aspect ratio that the
    model can't take); `field` may stay None, the gateway knows where the input came from.
    """

    @property
    def model_name(self) -> str: ...
    @property
    def max_model_len(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def eos_token_ids(self) -> Sequence[int]: ...
    @property
    def supports_images(self) -> bool: ...

    def render_chat(
        self,
        messages: list[dict[str, Any]],
        *,
        media: Sequence[MediaPixels],
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **template_kwargs: Any,
    ) -> RenderedPrompt:
        """Apply the chat template.

        A message is {"role": str, "content": str | list of parts, ...}; a part is
        {"type": "text", "text": str} or {"type": "image"}: the i-th image part of the whole
        conversation is `media[i]`.
        """
        ...

    def render_text(self, prompt: str | list[int]) -> RenderedPrompt:
        """A raw prompt: text is tokenised with the model's special tokens, ids are taken as is."""
        ...

    def prepare_image(self, image: Image.Image, content_key: str) -> MediaPixels:
        """Resize an RGB image to the model's grid; the key names content and options."""
        ...

    def tokenize(self, text: str, *, add_special_tokens: bool) -> list[int]: ...
    def detokenize(self, ids: Sequence[int]) -> str: ...
    def token_bytes(self, token_id: int) -> bytes:
        """The exact bytes one token stands for (may be part of a character), for logprobs."""
        ...
