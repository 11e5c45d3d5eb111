"""This file is about carrying bytes through Ray's object store, between any two hosts of a cluster.

A ticket is a serialised object reference. Serialising one outside of Ray's own calls pins the
object for the life of its owner (Ray can't count what it can't see), so the owner frees it by hand.
Ray is imported only where it already runs: the rest of the package works without it.
"""

import sys
from typing import Any


def has_ray() -> bool:
    """Whether this process is part of a Ray cluster."""
    ray = sys.modules.get("ray")
    return ray is not None and hasattr(ray, "is_initialized") and bool(ray.is_initialized())


def put_object(data: bytes) -> bytes:
    """Store bytes; the ticket can be redeemed anywhere in the cluster until it is freed."""
    import numpy
    import ray
    from ray import cloudpickle

    reference = ray.put(numpy.frombuffer(data, dtype=numpy.uint8))
    ticket: bytes = cloudpickle.dumps(reference)
    return ticket


def get_object(ticket: bytes, timeout_s: float) -> memoryview:
    """The bytes of a ticket, in Ray's shared memory: valid while the view is held.

    Only tickets of our own fleet are redeemed: they are pickles. They arrive on a connection that
    is a private unix socket, or tcp within a cluster that Ray itself trusts.

    Raises:
        TimeoutError: not transferred in time, or its owner is gone.
    """
    import ray
    from ray import cloudpickle

    try:
        array: Any = ray.get(cloudpickle.loads(ticket), timeout=timeout_s)
    except ray.exceptions.RayError as error:
        raise TimeoutError("the object did not arrive") from error
    return memoryview(array)


def free_object(ticket: bytes) -> None:
    """Free a ticket's object everywhere, whoever still holds a reference."""
    from ray import cloudpickle
    from ray._private.internal_api import free

    free([cloudpickle.loads(ticket)])
