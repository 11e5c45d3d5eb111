"""This file is about a process that holds one further rank of a model.

`python -m epidote_workers.ranks.follower FD`: FD is its end of the control socket. It ends when
standard input closes, in the middle of whatever it does: the leader holds the other end, and the
kernel closes that with the leader, even after kill -9.
"""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from epidote_workers.ranks.control import Control, Here, Order, PoolMemory, Ready

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


class LentMemory:
    """The engine's `allocate`: pools in memory that the leader made and sends."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def allocate(self, name: str, shape: Sequence[int], dtype: "torch.dtype") -> "torch.Tensor":
        import torch

        from epidote_workers.ranks.shared_memory import mapped, num_bytes

        wanted = num_bytes(shape, dtype)
        if not wanted:
            return torch.zeros(tuple(shape), dtype=dtype)
        given, descriptor = self._control.receive(PoolMemory)
        assert descriptor is not None, "memory comes with its descriptor"
        try:
            assert (given.name, given.num_bytes) == (name, wanted), "equal ranks have equal pools"
            return mapped(descriptor, shape, dtype)
        finally:
            os.close(descriptor)


def run(control: Control) -> None:
    """Make the engine, then follow until the leader stops."""
    import torch

    from epidote_engine.engine import Engine
    from epidote_engine.parallel.following import follow
    from epidote_engine.parallel.shards import Shards
    from epidote_workers.ranks.group import join
    from epidote_workers.transfer.cuda_ipc import export

    control.send(Here())
    order, _ = control.receive(Order)
    torch.set_num_threads(order.num_threads)
    group = join(order.config.device, order.rank, order.size, order.meeting)
    if order.config.device == "cpu":
        allocate = LentMemory(control).allocate
        engine = Engine(order.config, allocate=allocate, shards=Shards())
        control.send(Ready())
    else:
        engine = Engine(order.config, shards=Shards())
        pools = (("kv", engine.kv_pool.tensor), ("media", engine.media_pool.tensor))
        control.send(Ready(handles=tuple((name, export(tensor)) for name, tensor in pools)))
    follow(engine, group.calls)


def _end_with_leader() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os._exit(0)  # it may be in the middle of a collective: nothing is left to be done


def main() -> int:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader decides
    threading.Thread(target=_end_with_leader, daemon=True).start()
    try:
        run(Control(socket.socket(fileno=int(sys.argv[1])), "the leader"))
    except Exception:  # told; the leader notices the end of this process
        logger.exception("a rank of the model has failed")
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # without waiting for what torch's threads still do
