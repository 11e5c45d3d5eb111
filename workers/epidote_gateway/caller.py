"""This file is about who calls: API keys, their tenants, and the right to administrate."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest

from epidote_gateway.api_errors import ApiError
from epidote_gateway.cache.controls import NO_CONTROLS, CacheControls
from epidote_gateway.settings import GatewaySettings


@dataclass(frozen=True, kw_only=True)
class Caller:
    """`tenant` is empty where no keys are configured."""

    request_id: str
    tenant: str = ""
    is_admin: bool = False
    cache: CacheControls = NO_CONTROLS  # of the request's headers


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


class Keyring:
    """Compares keys in constant time: all of them, by digests of equal length."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._tenants = [(tenant, _digest(key)) for tenant, key in settings.api_keys]
        self._admin = _digest(settings.admin_key) if settings.admin_key else None

    def tenant(self, headers: Mapping[bytes, bytes]) -> str:
        """Whose key the request carries.

        Raises:
            ApiError: 401 if keys are configured and this isn't one.
        """
        if not self._tenants:
            return ""
        given = _digest(_key(headers))
        found = ""
        for tenant, digest in self._tenants:
            if compare_digest(digest, given):
                found = tenant
        if not found:
            raise _unauthorized("a valid API key is needed: Authorization: Bearer <key>")
        return found

    def is_admin(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether the request carries the admin key; where no key of any kind is set, always."""
        if self._admin is None:
            return not self._tenants
        return compare_digest(self._admin, _digest(_key(headers)))

    def check_admin(self, headers: Mapping[bytes, bytes]) -> None:
        """Let pass who holds the admin key; where no key of any kind is set, everybody.

        Raises:
            ApiError: 401 for another key; 403 if tenants have keys but nobody is administrator.
        """
        if self.is_admin(headers):
            return
        if self._admin is None:
            raise ApiError(
                403,
                "administration is off: API keys are set, but no EPIDOTE_GATEWAY_ADMIN_KEY",
                code="admin_disabled",
            )
        raise _unauthorized("the admin key is needed: Authorization: Bearer <key>")


def _key(headers: Mapping[bytes, bytes]) -> str:
    scheme, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _unauthorized(message: str) -> ApiError:
    return ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
