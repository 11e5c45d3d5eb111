"""This file is about the cache that a gateway's settings ask for."""

from importlib import import_module
from pathlib import Path

from prometheus_client import CollectorRegistry

from epidote_gateway.cache.policy_file import PolicyFile
from epidote_gateway.cache.response_cache import Collaborators, ResponseCache
from epidote_gateway.cache.stores import open_store
from epidote_gateway.settings import GatewaySettings


def cache_of(settings: GatewaySettings, registry: CollectorRegistry) -> ResponseCache | None:
    """None unless a policy file is named. The libraries are imported only then.

    Raises:
        InvalidPolicy: the file.
        StoreUnavailable: the store's URL, or its file.
    """
    if not settings.cache_policy:
        return None
    meaning = import_module("epidote_gateway.cache.meaning.sentence_meaning")
    file = PolicyFile(Path(settings.cache_policy))
    return ResponseCache(
        file.policy,
        Collaborators(
            meaning=meaning.SentenceMeaning(),
            store=open_store(settings.cache_store),
            policy_file=file,
            registry=registry,
            revision=settings.model_revision,
        ),
    )
