"""This file is about the command line as a client of a running service, over HTTP."""

from typing import Any

import httpx

from epidote_core.errors import EpidoteError

ADMIN_TIMEOUT_S = 120.0  # a role switch with its drain


class ServiceError(EpidoteError):
    """The service refused; the message is its own."""


class ServiceUnreachable(EpidoteError):
    """Nobody answers at the URL."""


def client(url: str, api_key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    # A proxy of the environment is for the outside, not for a service that is named here.
    return httpx.Client(base_url=url, headers=headers, timeout=ADMIN_TIMEOUT_S, trust_env=False)


def call(http: httpx.Client, method: str, path: str, body: Any = None) -> Any:
    """The JSON answer.

    Raises:
        ServiceUnreachable, ServiceError
    """
    try:
        response = http.request(method, path, json=body)
    except httpx.HTTPError as error:
        raise ServiceUnreachable(f"no answer from {http.base_url}: {error}") from error
    answer = decoded(response)
    # 409 with outcomes: some switch was rolled back; the caller shows which
    if response.is_success or (response.status_code == 409 and "outcomes" in answer):
        return answer
    raise refusal(response.status_code, answer)


def decoded(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer; {} if it is none."""
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def refusal(status: int, answer: dict[str, Any]) -> ServiceError:
    """An error body in OpenAI's form as an exception."""
    error = answer.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return ServiceError(f"{message or 'the service answered'} (HTTP {status})")
