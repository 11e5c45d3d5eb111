"""This file is about preparing chat completions: pictures, template, limits, one job."""

import asyncio
import uuid

from epidote_core.errors import InvalidRequest
from epidote_core.generation import Choice, GenerateRequest, MediaPixels
from epidote_gateway.answers import Job
from epidote_gateway.api_errors import ApiError, bad_field_of
from epidote_gateway.backend import RenderedPrompt
from epidote_gateway.cache.controls import cache_facts
from epidote_gateway.caller import Caller
from epidote_gateway.chat_answer import ChatWriter
from epidote_gateway.chat_request import ChatRequest, check, image_urls, template_messages
from epidote_gateway.parsing import parse
from epidote_gateway.sampling_fields import sampling_params
from epidote_gateway.services import Services, check_tokens
from epidote_gateway.serving import Prepared
from epidote_gateway.writing import Envelope, encode

INLINE_CHARS = 8192  # tokenised on the event loop: some 100 µs, as much as a thread hop


def parse_chat(body: bytes) -> ChatRequest:
    request = parse(body, ChatRequest)
    check(request)
    return request


async def prepare_chat(services: Services, request: ChatRequest, caller: Caller) -> Prepared:
    """A chat request as one job.

    Raises:
        ApiError: for whatever is wrong with it, naming the field.
    """
    model = services.check_model(request.model)
    services.check_choices(request.num_choices)
    media = await _load_media(services, request)
    prompt = await _render(services, request, media)
    max_tokens = services.max_new_tokens(
        len(prompt.token_ids),
        request.token_limit,
        field="messages",
        wanted_field="max_completion_tokens" if request.max_completion_tokens else "max_tokens",
    )
    envelope = Envelope(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        created=int(services.unix_time()),
        model=model,
        include_usage=request.include_usage,
        return_token_ids=bool(request.return_token_ids),
    )
    generate = GenerateRequest(
        request_id=envelope.id,
        prompt_token_ids=tuple(prompt.token_ids),
        sampling=sampling_params(
            request,
            max_tokens=max_tokens,
            logprobs=request.num_logprobs,
            vocab_size=services.renderer.vocab_size,
            draw_seed=services.draw_seed,
        ),
        media=tuple(prompt.media),
        choices=tuple(Choice(index=index) for index in range(request.num_choices)),
        cache_salt=services.cache_salt(caller, request.cache_salt),
        priority=services.priority(caller, request.priority),
    )
    check_tokens(generate, services.renderer.vocab_size, field="messages")
    job = Job(
        model=model,
        request=generate,
        pixels=tuple(media),
        tenant=caller.tenant,
        messages=tuple(template_messages(request)),
        cache=cache_facts(request, caller.cache),
    )
    return Prepared(
        jobs=(job,),
        writer=ChatWriter(envelope, services.texts),
        stream=bool(request.stream),
        continuous_usage=request.continuous_usage,
    )


async def _load_media(services: Services, request: ChatRequest) -> list[MediaPixels]:
    urls = list(image_urls(request))
    if not urls:
        return []
    started_s = services.clock()
    media = await services.media.load(urls)
    services.metrics.media.of().observe(services.clock() - started_s)
    return media


async def _render(
    services: Services, request: ChatRequest, media: list[MediaPixels]
) -> RenderedPrompt:
    def render() -> RenderedPrompt:
        return services.renderer.render_chat(
            template_messages(request),
            media=media,
            add_generation_prompt=request.add_generation_prompt is not False,
            **(request.chat_template_kwargs or {}),
        )

    try:
        if num_chars(request) <= INLINE_CHARS:
            return render()
        return await asyncio.to_thread(render)
    except ApiError:
        raise
    except InvalidRequest as error:
        raise bad_field_of(error, "messages") from error


def num_chars(request: ChatRequest) -> int:
    """Characters that the template may write: text, tool calls, its own arguments."""
    count = len(encode(request.chat_template_kwargs)) if request.chat_template_kwargs else 0
    for message in request.messages:
        if isinstance(message.content, str):
            count += len(message.content)
        elif message.content:
            count += sum(len(getattr(part, "text", "")) for part in message.content)
        count += len(message.name or "") + len(message.tool_call_id or "")
        count += len(encode(message.tool_calls)) if message.tool_calls else 0
    return count
