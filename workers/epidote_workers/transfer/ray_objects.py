"""This file is about carrying bytes through Ray's object store, between any two hosts of a cluster.

A ticket names an object and its owner. Ray's public way, pickling the reference, pins the object
for the life of its owner, because Ray can't count a reference that it does not see travel. So the
reference is taken apart and put together by the calls that Ray's own serializer makes (2.60,
ray/_private/serialization.py), and the owner keeps it until the reader has closed its stream.
Ray is imported only where it already runs: the rest of the package works without it.
"""

import sys
from typing import Any

import msgspec

_owned: dict[bytes, Any] = {}  # references that this process answers for, by ticket


def has_ray() -> bool:
    """Whether this process is part of a Ray cluster."""
    ray = sys.modules.get("ray")
    return ray is not None and hasattr(ray, "is_initialized") and bool(ray.is_initialized())


def put_object(data: bytes) -> bytes:
    """Store bytes; the ticket can be redeemed anywhere in the cluster until it is freed."""
    import numpy
    import ray

    reference = ray.put(numpy.frombuffer(data, dtype=numpy.uint8))
    worker = ray._private.worker.global_worker
    found, owner, status = worker.core_worker.serialize_object_ref(reference)
    ticket = msgspec.msgpack.encode((found.binary(), owner, status))
    _owned[ticket] = reference
    return ticket


def get_object(ticket: bytes, timeout_s: float) -> memoryview:
    """The bytes of a ticket, in Ray's shared memory: valid while the view is held.

    Raises:
        TimeoutError: not transferred in time, or its owner is gone.
    """
    import ray

    binary, owner, status = msgspec.msgpack.decode(ticket, type=tuple[bytes, bytes, bytes])
    reference = ray.ObjectRef(binary, owner)
    ray._private.worker.global_worker.core_worker.deserialize_and_register_object_ref(
        binary, ray.ObjectRef.nil(), owner, status
    )
    try:
        array: Any = ray.get(reference, timeout=timeout_s)
    except ray.exceptions.RayError as error:
        raise TimeoutError("the object did not arrive") from error
    return memoryview(array)


def free_object(ticket: bytes) -> None:
    """Let go of an object: its memory is free when the last reader drops its view."""
    _owned.pop(ticket, None)
