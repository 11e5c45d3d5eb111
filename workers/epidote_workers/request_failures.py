"""This file is about a request that the engine gave up, as the error that its stream ends with."""

from epidote_core.errors import ComputeFailed, EpidoteError, InvalidRequest, WorkerLost
from epidote_engine.events import Fault, RequestFailed


def failure(event: RequestFailed, worker_id: str) -> EpidoteError:
    """The error to raise for it; only one for which others may be to blame is tried again."""
    match event.fault:
        case Fault.REQUEST:
            return InvalidRequest(event.message)
        case Fault.COMPUTE:
            return ComputeFailed(event.message)
        case Fault.STEP:
            return WorkerLost(event.message, worker_id=worker_id, is_death=True)
