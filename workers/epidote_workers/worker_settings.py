"""This file is about what a worker is told when it starts, beside its engine's settings."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Settings of one worker. Durations in seconds.

    `socket_dir` (0700; short, paths end at 107 bytes) holds the unix sockets. With `tcp_host`
    the worker also listens there, on a port of the system's choice, and gives that as its address.
    Workers with equal `node_id` try to map each other's pools.
    """

    socket_dir: Path
    tcp_host: str | None = None
    node_id: str = ""  # "": this boot of this host
    uses_nixl: bool = True  # between hosts, where it is installed; else Ray's store or TCP
    kv_transfer_dtype: str = "auto"  # between hosts; "int8", "fp8": half the bytes, with a loss
    tensor_parallel_size: int = 1  # processes that the language model is cut over (`ranks`)
    max_encode_queue: int = 64  # media waiting at an encoder before it answers Overloaded
    max_kept_pixel_bytes: int = 256 << 20  # of media encoded and not fetched yet
    max_requests: int = 1024  # of one stage, before Overloaded
    reserve_timeout_s: float = 60.0  # a decoder's wait for free KV blocks
    media_timeout_s: float = 60.0  # a prefill's wait for one medium
    lease_s: float = 60.0  # how long finished KV or an embedding waits to be copied
    call_timeout_s: float = 5.0  # small calls between workers
    status_every_s: float = 0.1
    hung_after_s: float = 120.0  # one engine step or weight load that takes longer: unhealthy
