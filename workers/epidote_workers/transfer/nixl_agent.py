"""This file is about a worker's NIXL agent: memory that it lends, peers that it reads from.

NIXL (github.com/ai-dynamo/nixl) copies from memory to memory of two hosts through UCX: by RDMA,
from and to a GPU where the network card reaches it, else over TCP. `UCX_TLS` and `UCX_NET_DEVICES`
choose among what there is.

Who has an agent's metadata can read *and write* what it registered. It is told only to peers that
know the fleet's secret, but UCX itself checks nobody: the network must be trusted.
"""

import base64
import logging
import threading
import uuid
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy
import torch

from epidote_workers.rpc.errors import ConnectionLost
from epidote_workers.transfer.descriptor_socket import NoDescriptor
from epidote_workers.transfer.layout import PoolLayout

logger = logging.getLogger(__name__)

HOST_MEMORY, GPU_MEMORY = "DRAM", "VRAM"  # NIXL's names


@dataclass(frozen=True, kw_only=True)
class NixlHandle:
    """What a peer needs to read one pool. Plain values, checked on arrival."""

    agent: str
    metadata: bytes
    memory: str  # HOST_MEMORY or GPU_MEMORY
    device: int
    address: int
    num_bytes: int


def decode(where: str, layout: PoolLayout) -> NixlHandle:
    """The handle that a peer sent for a pool of `layout`.

    Raises:
        NoDescriptor: not a handle, or the memory it names is smaller than the pool.
    """
    try:
        handle = msgspec.msgpack.decode(base64.b64decode(where, validate=True), type=NixlHandle)
    except (ValueError, msgspec.MsgspecError) as error:
        raise NoDescriptor(f"pool {layout.name!r}: not a NIXL handle: {error}") from error
    if handle.memory not in (HOST_MEMORY, GPU_MEMORY) or min(handle.address, handle.device) < 0:
        raise NoDescriptor(f"pool {layout.name!r}: a NIXL handle of no memory: {handle.memory!r}")
    if handle.num_bytes < layout.num_bytes:
        raise NoDescriptor(
            f"pool {layout.name!r}: wanted {layout.num_bytes} bytes, "
            f"the handle has {handle.num_bytes}"
        )
    return handle


class NixlAgent:
    """Any thread may call any method; NIXL's own lock serialises them."""

    def __init__(self, agent: Any) -> None:
        """Use `open_agent`."""
        self._agent = agent
        self._registered: list[Any] = []
        self._peers: Counter[str] = Counter()  # pools attached of each
        self._lock = threading.Lock()

    def lend(self, units: torch.Tensor) -> NixlHandle | None:
        """Register a pool, once for its life; None: it is empty, or NIXL refuses its memory.

        Pinning takes some 0.1 s per GiB.
        """
        if not units.numel():
            return None
        try:
            self.register(units)
        except NoDescriptor as error:
            logger.warning("pool not lent by NIXL", extra={"reason": str(error)})
            return None
        return NixlHandle(
            agent=self._agent.name,
            metadata=self._agent.get_agent_metadata(),
            memory=memory_of(units),
            device=device_of(units),
            address=units.data_ptr(),
            num_bytes=units.numel() * units.element_size(),
        )

    def described(self, handle: NixlHandle) -> NixlHandle:
        """The same pool, with metadata that tell of all pools lent until now: a peer that knows
        an agent hears of it once."""
        return replace(handle, metadata=self._agent.get_agent_metadata())

    def register(self, memory: torch.Tensor) -> None:
        """Let transfers use a tensor's memory, which must outlive this agent.

        Raises:
            NoDescriptor: NIXL or the driver refuses.
        """
        try:
            self._registered.append(self._agent.register_memory(memory.view(-1)))
        except Exception as error:  # NIXL's own errors have no common ancestor but this
            raise NoDescriptor(f"memory not registered with NIXL: {error!r}") from error

    def join(self, handle: NixlHandle) -> None:
        """Know a peer; once more for each of its pools.

        Raises:
            NoDescriptor: it speaks another version of NIXL, or has no network in common with us.
        """
        with self._lock:
            if not self._peers[handle.agent]:
                try:
                    self._agent.add_remote_agent(handle.metadata)
                except Exception as error:
                    raise NoDescriptor(f"NIXL does not reach the peer: {error!r}") from error
            self._peers[handle.agent] += 1

    def part(self, handle: NixlHandle) -> None:
        """The reverse of `join`. A peer that is gone is forgotten without an error."""
        with self._lock:
            self._peers[handle.agent] -= 1
            if self._peers[handle.agent] == 0:
                del self._peers[handle.agent]
                try:
                    self._agent.remove_remote_agent(handle.agent)
                except Exception as error:  # it removed itself when the connection broke
                    logger.debug("peer not removed", extra={"reason": repr(error)})

    def begin(
        self, handle: NixlHandle, theirs: numpy.ndarray, into: torch.Tensor, ours: numpy.ndarray
    ) -> Any:
        """Start reading stretches [n, 3] of (address, bytes, device) of a peer into `into`'s.

        Returns a transfer for `is_over` and `end`.

        Raises:
            ConnectionLost: the peer is gone.
        """
        try:
            transfer = self._agent.initialize_xfer(
                "READ",
                self._agent.get_xfer_descs(ours, memory_of(into)),
                self._agent.get_xfer_descs(theirs, handle.memory),
                handle.agent,
            )
            self._agent.transfer(transfer)
        except Exception as error:
            raise ConnectionLost(f"NIXL: {error!r}") from error
        return transfer

    def is_over(self, transfer: Any) -> bool:
        """Whether all of it is here; False: it is still being written.

        Raises:
            ConnectionLost: it failed. Nothing writes any more.
        """
        try:
            state = self._agent.check_xfer_state(transfer)
        except Exception as error:
            raise ConnectionLost(f"NIXL: {error!r}") from error
        if state == "ERR":
            raise ConnectionLost("NIXL: the transfer failed")
        return bool(state == "DONE")

    def end(self, transfer: Any) -> None:
        """Forget a transfer that is over."""
        try:
            self._agent.release_xfer_handle(transfer)
        except Exception as error:  # of a broken connection; nothing is left to release then
            logger.debug("transfer not released", extra={"reason": repr(error)})

    def close(self) -> None:
        """Lend nothing any more."""
        for memory in self._registered:
            try:
                self._agent.deregister_memory(memory)
            except Exception as error:  # the process is about to end anyway
                logger.debug("memory not deregistered", extra={"reason": repr(error)})
        self._registered.clear()


def open_agent(name: str) -> NixlAgent | None:
    """A fresh agent (0.5 s); None where NIXL is not installed or finds no network to use."""
    raises = logging.raiseExceptions
    try:
        from nixl._api import nixl_agent, nixl_agent_config, nixl_thread_sync_t
    except ImportError as error:
        logger.info("NIXL is not used", extra={"reason": str(error)})
        return None
    # importing it sends its log to standard output, which is for results, and hushes ours
    logging.raiseExceptions = raises
    theirs = logging.getLogger("nixl")
    theirs.handlers.clear()
    theirs.propagate = True
    config = nixl_agent_config(
        backends=["UCX"], sync_mode=nixl_thread_sync_t.NIXL_THREAD_SYNC_STRICT
    )
    try:  # a name of its own: peers may still know a worker of this id that died
        return NixlAgent(nixl_agent(f"{name}-{uuid.uuid4().hex}", config))
    except Exception as error:  # no plugin, no device: whatever it is, there is another way
        logger.warning("NIXL is not used", extra={"reason": repr(error)})
        return None


def encode(handle: NixlHandle) -> str:
    """A handle as text, to go where a descriptor's path goes."""
    return base64.b64encode(msgspec.msgpack.encode(handle)).decode()


def memory_of(tensor: torch.Tensor) -> str:
    return GPU_MEMORY if tensor.is_cuda else HOST_MEMORY


def device_of(tensor: torch.Tensor) -> int:
    return tensor.get_device() if tensor.is_cuda else 0
