"""This file is about what endpoints share: the collaborators of one gateway process."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

from starlette.types import Receive, Scope, Send

from epidote_core.generation import GenerateRequest
from epidote_core.roles import Role, WorkerState
from epidote_gateway.admission import Admission
from epidote_gateway.answers import Answers
from epidote_gateway.api_errors import ApiError, bad_field
from epidote_gateway.backend import Backend, PromptRenderer
from epidote_gateway.caller import Caller
from epidote_gateway.http_exchange import Exchange
from epidote_gateway.logprobs import TokenTexts
from epidote_gateway.media_loading import MediaLoader
from epidote_gateway.memory_budget import Holding, MemoryBudget
from epidote_gateway.metrics import Metrics
from epidote_gateway.settings import GatewaySettings
from epidote_gateway.shedding import Shedding

Siblings = Callable[[], Awaitable[Sequence[bytes]]]  # metrics of others behind the same port


@dataclass(frozen=True, kw_only=True)
class Services:
    """`clock` is monotonic seconds, `unix_time` seconds since 1970."""

    backend: Backend
    renderer: PromptRenderer
    settings: GatewaySettings
    metrics: Metrics
    admission: Admission
    memory: MemoryBudget
    shedding: Shedding
    media: MediaLoader
    answers: Answers
    texts: TokenTexts
    rng: Random
    clock: Callable[[], float]
    unix_time: Callable[[], float]
    siblings: Siblings | None = None

    def exchange(self, scope: Scope, receive: Receive, send: Send) -> Exchange:
        """One request, within this server's patience."""
        exchange = Exchange(scope, receive, send)
        exchange.write_timeout_s = self.settings.write_timeout_s
        return exchange

    async def read_body(self, exchange: Exchange, holding: Holding) -> bytes:
        """The whole body, within the limits of size, time and memory; `holding` grows by it.

        Raises:
            ApiError: 408, 413, 415 or 429.
        """
        return await exchange.read_json_body(
            self.settings.max_body_bytes, timeout_s=self.settings.body_timeout_s, holding=holding
        )

    def draw_seed(self) -> int:
        return self.rng.getrandbits(63)

    @property
    def model_names(self) -> tuple[str, ...]:
        """The model's own name first."""
        return (self.renderer.model_name, *self.settings.served_model_names)

    def check_model(self, name: str | None) -> str:
        """The name to answer under; clients that name none get the only model.

        Raises:
            ApiError: 404, as OpenAI answers.
        """
        if name is None or name in self.model_names:
            return name or self.renderer.model_name
        raise ApiError(
            404,
            f"the model {name[:200]!r} does not exist; this server has"
            f" {', '.join(self.model_names)}",
            code="model_not_found",
            param="model",
        )

    def check_choices(self, num_choices: int) -> None:
        """Refuse more choices (of all prompts together) than one request may have."""
        if num_choices > self.settings.max_choices:
            wanted = f"at most {self.settings.max_choices} choices per request, got {num_choices}"
            raise bad_field("n", wanted)

    def cache_salt(self, caller: Caller, given: str | None) -> str:
        """Parts the prefix cache by tenant (unless switched off) and by the client's own salt."""
        tenant = caller.tenant if self.settings.isolate_tenants else ""
        return f"{tenant}\n{given or ''}" if tenant or given else ""

    def priority(self, caller: Caller, given: int | None) -> int:
        """What a request's `priority` counts: nothing, unless its caller may overtake others."""
        allowed = caller.is_admin or self.settings.client_priority
        return given or 0 if allowed else 0

    @property
    def max_model_len(self) -> int:
        """Prompt and answer together, in tokens: the model's, or what every decoder's KV holds."""
        return min(self.renderer.max_model_len, *self._kv_tokens(Role.DECODE), 2**31)

    def _kv_tokens(self, role: Role) -> list[int]:
        """What the KV of each worker that may do the role's work holds, in tokens."""
        return [
            worker.load.num_kv_blocks * self.backend.block_size
            for worker in self.backend.workers()
            if worker.role in (role, Role.ALL)
            and worker.state is not WorkerState.FAILED
            and worker.load.num_kv_blocks  # it has told
        ]

    def max_new_tokens(
        self,
        num_prompt_tokens: int,
        wanted: int | None,
        *,
        field: str,
        wanted_field: str = "max_tokens",
    ) -> int:
        """How many tokens may be generated after a prompt that came in `field`.

        Raises:
            ApiError: 400; OpenAI's code `context_length_exceeded`.
        """
        longest = self.max_model_len
        limit = min(longest, *self._kv_tokens(Role.PREFILL), 2**31) - 1
        limit = min(limit, self.settings.max_prompt_tokens or limit)
        if num_prompt_tokens > limit:
            raise ApiError(
                400,
                f"{field}: the prompt has {num_prompt_tokens} tokens, at most {limit} are possible",
                code="context_length_exceeded",
                param=field,
            )
        left = longest - num_prompt_tokens
        if wanted is None:
            return min(left, self.settings.default_max_tokens or left)
        if wanted > left:
            raise ApiError(
                400,
                f"{wanted_field}: prompt and answer may have {longest} tokens, the prompt has"
                f" {num_prompt_tokens}: at most {left} can follow, got {wanted}",
                code="context_length_exceeded",
                param=wanted_field,
            )
        return wanted


def check_tokens(request: GenerateRequest, vocab_size: int, *, field: str) -> None:
    """Refuse a prompt that no model can read: nothing in it, or ids beyond the vocabulary."""
    if not request.prompt_token_ids:
        raise bad_field(field, "must not be empty")
    for name, tokens in (
        (field, request.prompt_token_ids),
        ("stop_token_ids", request.sampling.stop_token_ids),
    ):
        if tokens and max(tokens) >= vocab_size:
            raise bad_field(name, f"token ids must be below {vocab_size}, got {max(tokens)}")
