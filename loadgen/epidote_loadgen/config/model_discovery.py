"""This file is about asking a server which model it serves, where the run file does not say."""

import httpx

from epidote_loadgen.plan import Target

ASK_S = 10.0


class ModelUnknown(Exception):
    """The server did not say which model it serves; nothing was sent."""


def discover_model(target: Target) -> str:
    """The first model of `/v1/models`. No proxy but the target's own is used.

    Raises:
        ModelUnknown: no answer, or one without a model.
    """
    headers = dict(target.headers)
    if target.api_key:
        headers["authorization"] = f"Bearer {target.api_key}"
    is_socket = target.url.startswith("unix://")
    path = target.url.removeprefix("unix://")
    verify: bool | str = (target.ca_file or True) if target.verify_tls else False
    base = "http://localhost" if is_socket else target.url.rstrip("/").removesuffix("/v1")
    try:
        transport = httpx.HTTPTransport(
            uds=path if is_socket else None, verify=verify, proxy=target.proxy_url or None
        )
        with httpx.Client(transport=transport, trust_env=False, timeout=ASK_S) as client:
            answer = client.get(f"{base}/v1/models", headers=headers)
            answer.raise_for_status()
            model = answer.json()["data"][0]["id"]
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        why = str(error) or type(error).__name__
        raise ModelUnknown(
            f"{target.url}: asked /v1/models for its model: {why}; or name it as target.model"
        ) from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ModelUnknown(
            f"{target.url}: /v1/models lists no model; name it as target.model"
        ) from error
    return str(model)
