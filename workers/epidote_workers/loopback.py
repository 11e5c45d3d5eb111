"""This file is about keeping Serve's own servers on loopback where the whole service is local.

A Serve replica (Ray 2.60) opens a gRPC port on all interfaces, without a setting for it. It is
guarded by Ray's token; yet nobody who asked for a service on 127.0.0.1 expects it on the network.
"""

import contextlib
import os
from typing import Any

VARIABLE = "EPIDOTE_LOOPBACK_ONLY"  # set for all processes of a local service
LOOPBACK = "127.0.0.1"


def keep_replica_on_loopback() -> None:
    """To be called while a replica is constructed: Serve opens the port afterwards."""
    if os.environ.get(VARIABLE) != "1":
        return
    from ray.serve._private import replica

    with contextlib.suppress(AttributeError):  # another Ray: it keeps its way
        add_port = replica.add_port_to_grpc_server

        def add_loopback_port(server: Any, address: str) -> Any:
            return add_port(server, address.replace("[::]", LOOPBACK))

        replica.add_port_to_grpc_server = add_loopback_port
