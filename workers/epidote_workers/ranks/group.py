"""This file is about the processes of one model finding each other; all are on one machine."""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

# One step that takes longer is broken; first steps of ranks may be minutes apart (kernels compile).
STEP_TIMEOUT = timedelta(minutes=10)
IDLE_TIMEOUT = timedelta(days=365)  # a follower waits in a broadcast for the next step


@dataclass(frozen=True)
class Group:
    """`calls` is for the leader's words: over gloo, and without a time limit."""

    calls: dist.ProcessGroup


def join(device: str, rank: int, size: int, meeting: str) -> Group:
    """Become one of `size` processes; blocks until all are there. `leave` must follow.

    Raises:
        RuntimeError: somebody did not come.
    """
    on_gpu = device.startswith("cuda")
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(variable, "lo")  # else the host's name must lead somewhere
    if on_gpu:
        import torch

        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=size,
        timeout=STEP_TIMEOUT,
    )
    calls = dist.new_group(backend="gloo", timeout=IDLE_TIMEOUT)
    assert isinstance(calls, dist.ProcessGroup), "every rank is in it"
    return Group(calls)


def leave() -> None:
    """Forget the group. Does not wait for the others."""
    if dist.is_initialized():
        dist.destroy_process_group()
