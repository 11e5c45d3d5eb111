"""This file is about errors as OpenAI's clients expect them: status, type, code, and the field."""

import math
from collections.abc import Mapping

import msgspec

from epidote_core.errors import ComputeFailed, InvalidRequest, Overloaded, PromptTooLong, WorkerLost


class ApiError(Exception):
    """An answer that is an error. `param` is the dotted path of the offending field."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind or _kind(status)
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """{"error": {message, type, param, code}}."""
        return msgspec.json.encode(
            {
                "error": {
                    "message": self.message,
                    "type": self.kind,
                    "param": self.param,
                    "code": self.code,
                }
            }
        )


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    if status == 403:
        return "permission_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def bad_field(field: str | None, wanted: str, *, code: str = "invalid_value") -> ApiError:
    """400 for one field; the message starts with the field's path."""
    message = f"{field}: {wanted}" if field else wanted
    return ApiError(400, message, code=code, param=field)


def overloaded(message: str, retry_after_s: float) -> ApiError:
    """429; Retry-After has whole seconds, at least one."""
    headers = {"retry-after": str(max(1, math.ceil(retry_after_s)))}
    return ApiError(429, message, code="overloaded", headers=headers)


def no_worker(message: str) -> ApiError:
    """503 of a fleet that has nobody for a stage."""
    return ApiError(503, message, code="no_worker_available", headers={"retry-after": "1"})


def stopping() -> ApiError:
    """503 of a gateway that ends before the answer does."""
    message = "the gateway is stopping; try again"
    return ApiError(503, message, code="stopping", headers={"retry-after": "1"})


def as_api_error(error: Exception) -> ApiError | None:
    """The API's view of an error that a neighbour raised; None: it is our bug."""
    match error:
        case ApiError():
            return error
        case InvalidRequest():
            return bad_field_of(error)
        case Overloaded():
            return overloaded(str(error), error.retry_after_s)
        case ComputeFailed():
            return ApiError(500, str(error), code="compute_failed")
        case WorkerLost():
            return no_worker("the request lost its worker; try again")
        case _:
            return None


def bad_field_of(error: InvalidRequest, field: str | None = None) -> ApiError:
    """400 for what a neighbour refused; `field` is where that came from, if it can't know."""
    code = "context_length_exceeded" if isinstance(error, PromptTooLong) else "invalid_value"
    return ApiError(400, str(error), code=code, param=error.field or field)


def internal_error(request_id: str) -> ApiError:
    """500 that tells nothing but where to look."""
    return ApiError(
        500, f"internal error; the log has it under request {request_id}", code="internal_error"
    )
