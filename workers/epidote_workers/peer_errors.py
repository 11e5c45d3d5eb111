"""This file is about how a peer fails, and the one error that the gateway makes of it.

Without torch: gateways import it too.
"""

from epidote_core.errors import WorkerLost
from epidote_workers.rpc.errors import ConnectionLost, RemoteFailure
from epidote_workers.rpc.frames import ProtocolError
from epidote_workers.transfer.layout import LayoutMismatch

PEER_ERRORS = (ConnectionLost, RemoteFailure, ProtocolError, LayoutMismatch, TimeoutError)


def lost(worker_id: str, error: Exception, *, had_work: bool = False) -> WorkerLost:
    """A peer's failure as the one error that the gateway recovers from.

    `had_work`: the peer had the request; a connection or handler that broke may have it to thank.
    """
    return WorkerLost(
        f"worker {worker_id}: {error or type(error).__name__}",
        worker_id=worker_id,
        is_death=had_work and isinstance(error, ConnectionLost | RemoteFailure),
    )
