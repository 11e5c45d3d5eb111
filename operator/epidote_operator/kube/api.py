"""This file is about requests to the API server: typed by verb, with deadlines and few retries.

Manifests are plain dicts: the server validates them, and unknown fields survive.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from epidote_operator.kube.credentials import Credentials
from epidote_operator.kube.errors import (
    ApiRefused,
    ApiUnreachable,
    Cause,
    Conflict,
    Expired,
    NotLeading,
    TooManyRequests,
)

Manifest = dict[str, Any]
FIELD_MANAGER = "epidote-operator"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"  # JSON is YAML
MAX_WAIT_S = 5.0  # longer than this a tick does not wait for a busy server


class KubeApi:
    """One identity at one API server. `num_calls` counts requests, watches included.

    `may_write` is asked right before every request that changes something.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        timeout_s: float = 15.0,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        self.credentials = credentials
        self._may_write = may_write
        self.num_calls = 0
        self._http = httpx.AsyncClient(
            base_url=credentials.server,
            verify=credentials.ssl_context,
            timeout=timeout_s,
            trust_env=False,
            headers={"User-Agent": FIELD_MANAGER},
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16),
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    @classmethod
    @asynccontextmanager
    async def connected(
        cls, credentials: Credentials, *, may_write: Callable[[], bool] = lambda: True
    ) -> AsyncIterator["KubeApi"]:
        api = cls(credentials, may_write=may_write)
        try:
            yield api
        finally:
            await api.aclose()

    async def get(self, path: str, **params: Any) -> Manifest | None:
        """The object or list at `path`; None if there is none (404)."""
        try:
            return await self.request("GET", path, params=params)
        except ApiRefused as error:
            if error.status == 404:
                return None
            raise

    async def create(self, path: str, body: Manifest) -> Manifest:
        """POST into a collection.

        Raises:
            Conflict: `already_exists` says whether the name is taken.
        """
        return await self.request("POST", path, body=body)

    async def apply(self, path: str, body: Manifest, *, force: bool = True) -> Manifest:
        """Server-side apply of the object at `path`: made or changed, fields owned by us.

        Raises:
            Conflict: another manager owns a field and `force` is off.
        """
        params = {"fieldManager": FIELD_MANAGER, "force": str(force).lower()}
        return await self.request("PATCH", path, params=params, body=body, content_type=APPLY)

    async def merge(
        self, path: str, body: Manifest, *, content_type: str = MERGE
    ) -> Manifest | None:
        """Merge patch; None if there is no such object. None as a value deletes a field.

        A `metadata.resourceVersion` in `body` makes it conditional.

        Raises:
            Conflict: the object is no longer at that resource version.
        """
        params = {"fieldManager": FIELD_MANAGER}
        try:
            return await self.request(
                "PATCH", path, params=params, body=body, content_type=content_type
            )
        except ApiRefused as error:
            if error.status == 404:
                return None
            raise

    async def delete(self, path: str, *, grace_s: int | None = None, uid: str = "") -> bool:
        """Ask for the object's deletion; False if it is gone already, or `uid` is another's."""
        body: Manifest = {"propagationPolicy": "Background"}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            await self.request("DELETE", path, body=body)
        except Conflict:
            return False
        except ApiRefused as error:
            if error.status == 404:
                return False
            raise
        return True

    async def delete_all(self, path: str, label_selector: str) -> None:
        """Every object of a collection that has these labels; their dependents follow."""
        await self.request(
            "DELETE",
            path,
            params={"labelSelector": label_selector},
            body={"propagationPolicy": "Background"},
        )

    async def watch(self, path: str, *, version: str, **params: Any) -> AsyncIterator[Manifest]:
        """Events `{"type", "object"}` of a collection from `version` on; ends when the server does.

        Raises:
            Expired: the version is too old, list again.
        """
        query = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": "300",
            **params,
        }
        headers = self.credentials.headers()
        timeout = httpx.Timeout(15.0, read=330.0)
        self.num_calls += 1
        try:
            async with self._http.stream(
                "GET", path, params=query, headers=headers, timeout=timeout
            ) as answer:
                if answer.status_code != 200:
                    raise _refusal("GET", path, answer.status_code, await answer.aread(), {})
                async for line in answer.aiter_lines():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise _refusal(
                            "WATCH", path, status.get("code", 500), line.encode(), status
                        )
                    yield event
        except httpx.HTTPError as error:
            raise ApiUnreachable(f"watch {path}: {error!r}") from error

    async def text(self, path: str, **params: Any) -> str:
        """What is not JSON, such as a pod's log."""
        return (await self._answer("GET", path, params, None, "")).text

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        """One request; once more after the wait that a busy server (429) asks for.

        Nothing else is retried: the next tick observes again and decides afresh.

        Raises:
            ApiUnreachable, ApiRefused and its kinds, NoCredentials, NotLeading.
        """
        try:
            return await self._once(method, path, params, body, content_type)
        except TooManyRequests as busy:
            if busy.retry_after_s > MAX_WAIT_S:
                raise
            await asyncio.sleep(busy.retry_after_s)
            return await self._once(method, path, params, body, content_type)

    async def _once(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        body: Manifest | None,
        content_type: str,
    ) -> Manifest:
        return dict((await self._answer(method, path, params, body, content_type)).json())

    async def _answer(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        body: Manifest | None,
        content_type: str,
    ) -> httpx.Response:
        headers = self.credentials.headers()
        content = None
        if body is not None:
            headers["Content-Type"] = content_type
            content = json.dumps(body).encode()
        if method != "GET" and not self._may_write():
            raise NotLeading(f"{method} {path}: not sent, another operator may lead by now")
        self.num_calls += 1
        try:
            answer = await self._http.request(
                method, path, params=params or {}, content=content, headers=headers
            )
        except httpx.HTTPError as error:
            raise ApiUnreachable(f"{method} {path}: {error!r}") from error
        if answer.status_code < 300:
            return answer
        raise _refusal(method, path, answer.status_code, answer.content, answer.headers)


def _refusal(
    method: str, path: str, status: int, content: bytes, headers: Mapping[str, Any]
) -> ApiRefused:
    causes: tuple[Cause, ...] = ()
    try:
        told = json.loads(content)
        told = told.get("object", told)
        reason, message = told.get("reason", ""), told.get("message", "")
        causes = tuple(
            Cause(field=cause.get("field", ""), message=cause.get("message", ""))
            for cause in (told.get("details") or {}).get("causes") or ()
        )
    except (ValueError, AttributeError):
        reason, message = "", content[:300].decode(errors="replace")
    text = f"{method} {path}: {status} {reason}: {message}"
    if status == 409:
        return Conflict(text, status=status, reason=reason)
    if status == 410:
        return Expired(text, status=status, reason=reason)
    if status == 429:
        wait = str(headers.get("retry-after", "1"))
        return TooManyRequests(
            text, reason=reason, retry_after_s=float(wait) if wait.isdigit() else 1.0
        )
    return ApiRefused(text, status=status, reason=reason, causes=causes)
