"""This file is about the port of a fleet's head: another one for every revision.

Ray's server for joining listens on all addresses of its host, whatever address the head was given.
Where pods share a host's network (hostNetwork, which RDMA takes; the test cluster) two heads on one
port collide: in a rollout the new head could not start, and its workers would find the old one.
"""

import hashlib

from epidote_operator.resources.fleet_values import Fleet

# Below NodePorts (30000) and the ports that systems give to clients (32768), above those that Ray
# gives to its workers (10002 to 19999).
FIRST, NUM_PORTS = 20_000, 8192


def fleet_id(fleet: Fleet) -> str:
    """Names one revision of one service; its parts join no head of another one."""
    return f"{fleet.namespace}/{fleet.name}/{fleet.revision}"


def ray_port(fleet: Fleet) -> int:
    """The port that this revision's workers and gateways join at; the same whenever it is asked.

    Two of 8192: a rollout on one host meets itself once in so many, and is undone by any change.
    """
    digest = hashlib.sha256(fleet_id(fleet).encode()).digest()
    return FIRST + int.from_bytes(digest[:4], "big") % NUM_PORTS
