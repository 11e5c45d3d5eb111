"""This file is about choosing a store by its URL."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from epidote_gateway.cache.protocols import DocumentStore
from epidote_gateway.cache.sqlite_store import SqliteStore
from epidote_gateway.cache.store_errors import StoreUnavailable

REDIS_SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys")


def default_path(model: str = "", environ: Mapping[str, str] | None = None) -> Path:
    """Where a service on one host keeps its answers, by the XDG convention: a file for each model,
    since services on one file make room in it for each other."""
    environ = os.environ if environ is None else environ
    home = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    name = re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-.")
    return Path(home) / "epidote" / (f"answers-{name}.sqlite3" if name else "answers.sqlite3")


def check_url(url: str) -> None:
    """Raises StoreUnavailable for what `open_store` doesn't know, and files that can't be made."""
    scheme, _, rest = url.partition(":")
    if scheme not in (*REDIS_SCHEMES, "sqlite") or not rest.strip("/"):
        raise StoreUnavailable(
            f"the cache store must be sqlite:PATH or redis://HOST:PORT/DB, got {url!r:.200}"
        )
    if scheme == "sqlite":
        _check_file(Path(rest))


def _check_file(path: Path) -> None:
    """Whether a store can be made there, making nothing."""
    if path.is_dir():
        raise StoreUnavailable(f"sqlite:{path}: is a directory")
    there = next((p for p in (path, *path.parents) if p.exists()), path)
    if there != path and not there.is_dir():
        raise StoreUnavailable(f"sqlite:{path}: {there} is no directory")
    if not os.access(there, os.W_OK):
        raise StoreUnavailable(f"sqlite:{path}: {there} can't be written")


def open_store(url: str) -> DocumentStore:
    """`sqlite:PATH`, `redis://host:port/db` (Valkey alike), or "" for a file in the user's cache.

    Raises:
        StoreUnavailable: an unknown kind of URL, or a file that can't be opened. A server is
            called when it is first needed: the gateway starts without it.
    """
    if not url:
        return SqliteStore(default_path())
    check_url(url)
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite":
        return SqliteStore(Path(rest))
    from epidote_gateway.cache.redis_store import RedisStore

    return RedisStore(scheme.replace("valkey", "redis") + ":" + rest)
