"""This file is about preparing text completions: one job for each prompt."""

import asyncio
import uuid
from functools import partial

from epidote_core.errors import InvalidRequest
from epidote_core.generation import Choice, GenerateRequest
from epidote_gateway.answers import Job
from epidote_gateway.api_errors import bad_field_of
from epidote_gateway.backend import RenderedPrompt
from epidote_gateway.cache.controls import cache_facts
from epidote_gateway.caller import Caller
from epidote_gateway.chat_endpoint import INLINE_CHARS
from epidote_gateway.completion_answer import CompletionWriter
from epidote_gateway.completion_request import CompletionRequest, Prompt, check, prompts
from epidote_gateway.parsing import parse
from epidote_gateway.sampling_fields import sampling_params
from epidote_gateway.services import Services, check_tokens
from epidote_gateway.serving import Prepared
from epidote_gateway.writing import Envelope

DEFAULT_MAX_TOKENS = 16  # OpenAI's


def parse_completion(body: bytes) -> CompletionRequest:
    request = parse(body, CompletionRequest)
    check(request)
    prompts(request)
    return request


async def prepare_completion(
    services: Services, request: CompletionRequest, caller: Caller
) -> Prepared:
    """A text completion request as a job per prompt.

    Raises:
        ApiError: for whatever is wrong with it, naming the field.
    """
    model = services.check_model(request.model)
    given = prompts(request)
    services.check_choices(request.num_choices * len(given))
    envelope = Envelope(
        id=f"cmpl-{uuid.uuid4().hex}",
        created=int(services.unix_time()),
        model=model,
        include_usage=request.include_usage,
        return_token_ids=bool(request.return_token_ids),
    )
    jobs: list[Job] = []
    echoes: dict[str, str] = {}
    for number, (field, prompt) in enumerate(given):
        rendered = await _render(services, field, prompt)
        request_id = f"{envelope.id}-{number}"
        job = _job(services, request, caller, rendered, field, request_id, model)
        jobs.append(job)
        if request.echo:
            text = prompt if isinstance(prompt, str) else services.renderer.detokenize(prompt)
            echoes[request_id] = text
    return Prepared(
        jobs=jobs,
        writer=CompletionWriter(envelope, services.texts, echoes),
        stream=bool(request.stream),
        continuous_usage=request.continuous_usage,
    )


def _job(
    services: Services,
    request: CompletionRequest,
    caller: Caller,
    rendered: RenderedPrompt,
    field: str,
    request_id: str,
    model: str,
) -> Job:
    num_tokens = len(rendered.token_ids)
    left = services.max_new_tokens(num_tokens, None, field=field)
    wanted = min(DEFAULT_MAX_TOKENS, left) if request.max_tokens is None else request.max_tokens
    max_tokens = services.max_new_tokens(num_tokens, wanted, field=field)
    generate = GenerateRequest(
        request_id=request_id,
        prompt_token_ids=tuple(rendered.token_ids),
        sampling=sampling_params(
            request,
            max_tokens=max_tokens,
            logprobs=request.logprobs,
            vocab_size=services.renderer.vocab_size,
            draw_seed=services.draw_seed,
        ),
        media=tuple(rendered.media),
        choices=tuple(Choice(index=index) for index in range(request.num_choices)),
        cache_salt=services.cache_salt(caller, request.cache_salt),
        priority=services.priority(caller, request.priority),
    )
    check_tokens(generate, services.renderer.vocab_size, field=field)
    return Job(
        model=model,
        request=generate,
        tenant=caller.tenant,
        cache=cache_facts(request, caller.cache),
    )


async def _render(services: Services, field: str, prompt: Prompt) -> RenderedPrompt:
    render = partial(services.renderer.render_text, prompt)
    try:
        if len(prompt) <= INLINE_CHARS:
            return render()
        return await asyncio.to_thread(render)
    except InvalidRequest as error:
        refused = bad_field_of(error)  # it knows one prompt, not which of several
        refused.message = refused.message.replace("prompt: ", f"{field}: ", 1)
        refused.param = field
        raise refused from error
