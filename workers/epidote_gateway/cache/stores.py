"""This file is about choosing a store by its URL."""

import os
from collections.abc import Mapping
from pathlib import Path

from epidote_gateway.cache.protocols import DocumentStore
from epidote_gateway.cache.sqlite_store import SqliteStore
from epidote_gateway.cache.store_errors import StoreUnavailable

REDIS_SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys")


def default_path(environ: Mapping[str, str] | None = None) -> Path:
    """Where a service on one host keeps its answers, by the XDG convention."""
    environ = os.environ if environ is None else environ
    home = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "epidote" / "answers.sqlite3"


def open_store(url: str) -> DocumentStore:
    """`sqlite:PATH`, `redis://host:port/db` (Valkey alike), or "" for a file in the user's cache.

    Raises:
        StoreUnavailable: an unknown kind of URL, or a file that can't be opened. A server is
            called when it is first needed: the gateway starts without it.
    """
    if not url:
        return SqliteStore(default_path())
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite" and rest.removeprefix("//"):
        return SqliteStore(Path(rest.removeprefix("//")))
    if scheme in REDIS_SCHEMES:
        from epidote_gateway.cache.redis_store import RedisStore

        return RedisStore(scheme.replace("valkey", "redis") + ":" + rest)
    raise StoreUnavailable(
        f"the cache store must be sqlite:PATH or redis://HOST:PORT/DB, got {url!r:.200}"
    )
