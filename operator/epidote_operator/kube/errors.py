"""This file is about what an API server refuses, told apart as far as callers act differently."""

from dataclasses import dataclass

from epidote_core.errors import EpidoteError


class KubeError(EpidoteError):
    """Any failure of a request to the API server."""


class ApiUnreachable(KubeError):
    """No answer: nothing is known of what happened to the request."""


class NotLeading(KubeError):
    """A write that was not sent: another operator may lead by now."""


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One thing that the server found wrong with an object. `field`: as it names fields, "" if it
    doesn't say."""

    field: str
    message: str


class ApiRefused(KubeError):
    """The server answered with an error. `status` is HTTP's, `reason` Kubernetes' own word."""

    def __init__(
        self, message: str, *, status: int, reason: str, causes: tuple[Cause, ...] = ()
    ) -> None:
        super().__init__(message)
        self.status, self.reason, self.causes = status, reason, causes

    @property
    def words(self) -> str:
        """The server's own, without what was asked of it."""
        return str(self).partition(f" {self.status} {self.reason}: ")[2] or str(self)


class Conflict(ApiRefused):
    """Somebody else changed, made or owns it (409): look again."""

    @property
    def already_exists(self) -> bool:
        return self.reason == "AlreadyExists"


class TooManyRequests(ApiRefused):
    """The server asks for patience (429). `retry_after_s` is its own figure, else 1."""

    def __init__(self, message: str, *, reason: str, retry_after_s: float) -> None:
        super().__init__(message, status=429, reason=reason)
        self.retry_after_s = retry_after_s


class Expired(ApiRefused):
    """A watch's resource version is too old (410): list again."""
