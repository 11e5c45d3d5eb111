"""This file is about errors that cross a process border, and those of the border itself."""

from dataclasses import dataclass

from epidote_core.errors import (
    ComputeFailed,
    EpidoteError,
    InvalidRequest,
    OutOfBlocks,
    Overloaded,
    WorkerLost,
)
from epidote_workers.rpc.frames import ProtocolError


class ConnectionLost(EpidoteError):
    """The peer is gone or silent: every stream of the connection ends with this, at once."""


class RemoteFailure(EpidoteError):
    """The peer's handler failed in a way that is nobody's plan: a bug, look at its log."""


@dataclass(frozen=True, kw_only=True)
class WireError:
    """An error as it travels."""

    kind: str
    message: str
    worker_id: str = ""
    is_planned: bool = False
    is_death: bool = False
    field: str | None = None
    retry_after_s: float = 0.0


def to_wire(error: BaseException) -> WireError:
    """What the peer may know of an error; the text of unplanned ones stays here."""
    message = str(error)
    match error:
        case WorkerLost():
            return WireError(
                kind="worker_lost",
                message=message,
                worker_id=error.worker_id,
                is_planned=error.is_planned,
                is_death=error.is_death,
            )
        case ComputeFailed():
            return WireError(kind="compute_failed", message=message)
        case InvalidRequest():
            return WireError(kind="invalid_request", message=message, field=error.field)
        case Overloaded():
            return WireError(kind="overloaded", message=message, retry_after_s=error.retry_after_s)
        case OutOfBlocks():
            return WireError(kind="out_of_blocks", message=message)
        case TimeoutError():
            return WireError(kind="timeout", message=message or "the deadline passed")
        case ProtocolError():
            return WireError(kind="protocol", message=message)
        case _:
            return WireError(kind="failure", message=type(error).__name__)


def from_wire(error: WireError) -> Exception:
    """The error to raise where the stream is read."""
    match error.kind:
        case "worker_lost":
            return WorkerLost(
                error.message,
                worker_id=error.worker_id,
                is_planned=error.is_planned,
                is_death=error.is_death,
            )
        case "compute_failed":
            return ComputeFailed(error.message)
        case "invalid_request":
            return InvalidRequest(error.message, error.field)
        case "overloaded":
            return Overloaded(error.message, retry_after_s=error.retry_after_s)
        case "out_of_blocks":
            return OutOfBlocks(error.message)
        case "timeout":
            return TimeoutError(error.message)
        case "protocol":
            return ProtocolError(error.message)
        case _:
            return RemoteFailure(error.message)
