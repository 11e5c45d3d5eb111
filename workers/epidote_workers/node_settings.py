"""This file is about what a node that joined tells the replica that Serve will start on it.

By the environment: Ray's processes inherit it from whoever starts the node.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

DIRECTORY_VARIABLE = "EPIDOTE_NODE_DIRECTORY"
HOST_VARIABLE = "EPIDOTE_NODE_HOST"
NAME_VARIABLE = "EPIDOTE_NODE_NAME"
ROLE_VARIABLE = "EPIDOTE_NODE_ROLE"


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """Where a worker's sockets lie, the address that others reach it by, its name, its wish.

    The name (of the pod) is what the fleet shows as the worker's `node_id`; workers of one name try
    to map each other's memory. `role` is the one that whoever made the pod means it for: it gets it
    if the fleet misses one of it. All empty in a local service, where `ReplicaSettings` says it.
    """

    run_directory: str = ""
    host: str = ""
    name: str = ""
    role: str = ""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "NodeSettings":
        return cls(
            run_directory=environ.get(DIRECTORY_VARIABLE, ""),
            host=environ.get(HOST_VARIABLE, ""),
            name=environ.get(NAME_VARIABLE, ""),
            role=environ.get(ROLE_VARIABLE, ""),
        )

    def to_env(self) -> dict[str, str]:
        return {
            DIRECTORY_VARIABLE: self.run_directory,
            HOST_VARIABLE: self.host,
            NAME_VARIABLE: self.name,
            ROLE_VARIABLE: self.role,
        }


def device_here(wanted: str) -> str:
    """ "cpu" or "cuda"; "auto" is for each node to decide. Imports torch for that."""
    if wanted != "auto":
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
