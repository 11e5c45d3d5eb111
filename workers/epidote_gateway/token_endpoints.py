"""This file is about /tokenize and /detokenize."""

import asyncio

from starlette.types import Receive, Scope, Send

from epidote_core.errors import InvalidRequest
from epidote_gateway.api_errors import bad_field, bad_field_of
from epidote_gateway.chat_request import ChatRequest, check, image_urls, template_messages
from epidote_gateway.http_exchange import Exchange
from epidote_gateway.parsing import parse
from epidote_gateway.services import Services
from epidote_gateway.token_requests import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeRequest,
    TokenizeResponse,
)
from epidote_gateway.writing import encode


class TokenizeEndpoint:
    """An ASGI application for one path."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._services.exchange(scope, receive, send)
        with self._services.memory.hold() as holding:
            request = parse(await self._services.read_body(exchange, holding), TokenizeRequest)
            await self._answer(exchange, request)

    async def _answer(self, exchange: Exchange, request: TokenizeRequest) -> None:
        self._services.check_model(request.model)
        tokens = await asyncio.to_thread(self._tokens, request)
        texts = None
        if request.return_token_strs:
            texts = [self._services.texts.text_of(token) for token in tokens]
        response = TokenizeResponse(
            count=len(tokens),
            max_model_len=self._services.max_model_len,
            tokens=tokens,
            token_strs=texts,
        )
        await exchange.whole(200, encode(response))

    def _tokens(self, request: TokenizeRequest) -> list[int]:
        renderer = self._services.renderer
        if request.prompt is not None and request.messages is None:
            special = request.add_special_tokens is not False
            return list(renderer.tokenize(request.prompt, add_special_tokens=special))
        if request.messages is None or request.prompt is not None:
            raise bad_field("prompt", "give either prompt or messages")
        chat = ChatRequest(
            messages=request.messages, chat_template_kwargs=request.chat_template_kwargs
        )
        check(chat)
        for field, _ in image_urls(chat):
            raise bad_field(field, "images are not supported here")
        try:
            rendered = renderer.render_chat(
                template_messages(chat),
                media=(),
                add_generation_prompt=request.add_generation_prompt is not False,
                **(request.chat_template_kwargs or {}),
            )
        except InvalidRequest as error:
            raise bad_field_of(error, "messages") from error
        return list(rendered.token_ids)


class DetokenizeEndpoint:
    """An ASGI application for one path."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._services.exchange(scope, receive, send)
        with self._services.memory.hold() as holding:
            request = parse(await self._services.read_body(exchange, holding), DetokenizeRequest)
            await self._answer(exchange, request)

    async def _answer(self, exchange: Exchange, request: DetokenizeRequest) -> None:
        self._services.check_model(request.model)
        vocab_size = self._services.renderer.vocab_size
        for number, token in enumerate(request.tokens):
            if token >= vocab_size:
                raise bad_field(f"tokens[{number}]", f"must be below {vocab_size}, got {token}")
        text = await asyncio.to_thread(self._services.renderer.detokenize, request.tokens)
        await exchange.whole(200, encode(DetokenizeResponse(prompt=text)))
