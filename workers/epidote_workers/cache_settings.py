"""This file is about the response cache of `epidote serve`: which policy, store and weights."""

from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from epidote_gateway.cache.policy_file import read_policy
from epidote_gateway.cache.stores import check_url, default_path
from epidote_gateway.settings import GatewaySettings


def with_cache(
    gateway: GatewaySettings, *, policy: Path | None, store: str, model: str, weights: Path
) -> GatewaySettings:
    """`gateway` with the cache that flags or environment ask for, checked before Ray starts.

    Raises:
        InvalidPolicy, StoreUnavailable
    """
    if policy is None and not gateway.cache_policy:
        return gateway
    path = (policy or Path(gateway.cache_policy)).expanduser().resolve()
    read_policy(path)
    url = store or gateway.cache_store or f"sqlite:{default_path(model)}"
    check_url(url)
    return replace(
        gateway,
        cache_policy=str(path),
        cache_store=url,
        model_revision=gateway.model_revision or weights_revision(weights),
    )


def weights_revision(model: Path) -> str:
    """Changes when a file of the model does: by names, sizes and times, since gigabytes are slow.

    A model trained anew under the old name must not be given the old one's answers.
    """
    digest = blake2b(digest_size=8)
    files = sorted(model.iterdir()) if model.is_dir() else [model]
    for file in files:
        if file.is_file():
            stat = file.stat()
            digest.update(f"{file.name}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
