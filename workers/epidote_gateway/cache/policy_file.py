"""This file is about the policy as a file: read, checked, and watched for changes.

The file has the policy's fields, or is the custom resource with them under `spec`; YAML or JSON.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, NoReturn

from epidote_gateway.cache.policy import CachePolicy, InvalidPolicy, parse_policy

logger = logging.getLogger(__name__)
KIND = "CachePolicy"
GROUP = "serving.epidote.dev"
Apply = Callable[[CachePolicy], Awaitable[None]]
REFUSED = "cache policy refused, the one before stays in force"
WATCH_S = 1.0  # a change is in force within two looks, and the time that making judges takes


def read_policy(path: Path) -> CachePolicy:
    """The policy in `path`.

    Raises:
        InvalidPolicy: no file, no YAML, or a field that can't be honoured; starts with the path.
    """
    try:
        return policy_of(path.read_bytes())
    except OSError as error:
        raise InvalidPolicy(f"{path}: can't be read: {error.strerror}") from error
    except InvalidPolicy as error:
        raise InvalidPolicy(f"{path}: {error}") from error


def policy_of(data: bytes) -> CachePolicy:
    """Raises InvalidPolicy."""
    import yaml  # of the extra `cache`

    from epidote_gateway.cache.unique_keys import UniqueKeyLoader

    try:
        found: Any = yaml.load(data, Loader=UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidPolicy(f"no valid YAML: {error}") from error
    if not isinstance(found, dict):
        raise InvalidPolicy(f"must be a mapping of fields, got {type(found).__name__}")
    return policy_from(found)


def policy_from(found: Mapping[str, Any]) -> CachePolicy:
    """Of the policy's fields, or of the whole resource. Raises InvalidPolicy.

    >>> policy_from({"kind": "Deployment", "spec": {}})
    Traceback (most recent call last):
    epidote_gateway.cache.policy.InvalidPolicy: kind: must be CachePolicy, got 'Deployment'
    """
    if "kind" not in found:
        return parse_policy(found, path="policy")
    if found["kind"] != KIND:
        raise InvalidPolicy(f"kind: must be {KIND}, got {found['kind']!r:.80}")
    version = found.get("apiVersion", f"{GROUP}/")
    if not str(version).startswith(f"{GROUP}/"):
        raise InvalidPolicy(f"apiVersion: must be of {GROUP}, got {version!r:.80}")
    spec = found.get("spec", {})
    if not isinstance(spec, dict):
        raise InvalidPolicy(f"spec: must be a mapping of fields, got {type(spec).__name__}")
    return parse_policy(spec)


class PolicyFile:
    """A policy file as it was read, watched for what it becomes.

    By content and not by time: a mounted ConfigMap changes by switching links.
    """

    def __init__(self, path: Path) -> None:
        """Raises InvalidPolicy, as `read_policy`."""
        self._path = path
        self._seen = _read(path)
        self.policy = read_policy(path)
        self.digest = _digest(self._seen)  # of the content that is in force

    async def watch(
        self, apply: Apply, on_refused: Callable[[], None], *, pause_s: float = WATCH_S
    ) -> NoReturn:
        """Apply each new policy, for ever."""
        while True:
            await asyncio.sleep(pause_s)
            await self.look(apply, on_refused)

    async def look(self, apply: Apply, on_refused: Callable[[], None]) -> bool:
        """Apply the file if it has changed; a bad or missing one changes nothing."""
        data = await asyncio.to_thread(_read, self._path)
        if data is None or data == self._seen:
            return False
        self._seen = data
        try:
            policy = policy_of(data)
            await apply(policy)
        except InvalidPolicy as error:
            on_refused()
            logger.warning("%s: %s: %s", REFUSED, self._path, error)
            return False
        except Exception:
            # Safe: `apply` changes nothing unless it succeeds.
            on_refused()
            logger.exception("%s: %s: it could not be applied", REFUSED, self._path)
            return False
        self.policy, self.digest = policy, _digest(data)
        return True


def _digest(data: bytes | None) -> str:
    return blake2b(data or b"", digest_size=8).hexdigest()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
