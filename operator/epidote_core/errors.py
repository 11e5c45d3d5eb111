"""This file is about the few failures that callers really tell apart."""


class EpidoteError(Exception):
    """Root of every error that Epidote raises on purpose."""


class InvalidRequest(EpidoteError, ValueError):
    """The client asked for something that can't be done; nothing was started.

    `field` names the offending field of the request (dotted path), for the API's error body.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class ComputeFailed(EpidoteError):
    """A valid request that can't be computed, on this worker or another; the client is told."""


class OutOfBlocks(EpidoteError):
    """Fewer free KV blocks than needed; nothing was changed."""


class PromptTooLong(InvalidRequest):
    """A prompt that can't fit, however few tokens are asked for."""


class Overloaded(EpidoteError):
    """No capacity now; `retry_after_s` says when to try again."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class WorkerLost(EpidoteError):
    """The worker died, left, or refused the stage; the request may continue on another one.

    `worker_id` is the worker to avoid when the request is routed again. `is_planned`: nothing is
    wrong with it, it drains or has another role by now. `is_death`: it broke while it had the
    request, which may be why.
    """

    def __init__(
        self, message: str, *, worker_id: str, is_planned: bool = False, is_death: bool = False
    ) -> None:
        super().__init__(message)
        self.worker_id, self.is_planned, self.is_death = worker_id, is_planned, is_death
