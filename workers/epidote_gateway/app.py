"""This file is about putting the gateway together: one FastAPI app from its three collaborators."""

from fastapi import FastAPI

from epidote_gateway.backend import Backend, PromptRenderer
from epidote_gateway.settings import GatewaySettings


def create_app(
    backend: Backend, renderer: PromptRenderer, settings: GatewaySettings | None = None
) -> FastAPI:
    """The OpenAI-compatible app. It starts no process and owns nothing of `backend`."""
    raise NotImplementedError
