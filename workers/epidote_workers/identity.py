"""This file is about names that two workers compare: which host, which model."""

import os
from hashlib import blake2b
from pathlib import Path

from epidote_engine.model_files import InvalidModel, model_directory


def this_boot() -> str:
    """This boot of this host; equal in all containers of a host (their mounts may differ)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return os.uname().nodename


def model_fingerprint(model: str) -> str:
    """Names what KV and embeddings mean: the configuration and the weights' files by size.

    Reading gigabytes of weights for a digest would take longer than loading them.
    """
    try:
        directory = model_directory(model)
    except (InvalidModel, OSError):
        return model  # a pretend model has no files
    digest = blake2b((directory / "config.json").read_bytes(), digest_size=16)
    for weights in sorted(directory.glob("*.safetensors")):
        digest.update(f"|{weights.name}:{weights.stat().st_size}".encode())
    return digest.hexdigest()
