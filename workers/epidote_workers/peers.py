"""This file is about the other workers, as this one reaches them: one connection each, pools."""

import asyncio
import logging

from epidote_core.errors import EpidoteError
from epidote_core.transfer_count import TransferCount
from epidote_workers.messages import POOLS, TAKEN, Nothing, Pools, TakenCall
from epidote_workers.rpc.client import Connection, connect
from epidote_workers.rpc.errors import ConnectionLost
from epidote_workers.transfer.copy_thread import CopyThread
from epidote_workers.transfer.cuda_ipc import CudaIpcTransport
from epidote_workers.transfer.descriptor_socket import NoDescriptor
from epidote_workers.transfer.layout import LayoutMismatch
from epidote_workers.transfer.meter import MeteredPool, TransferMeter, seen_by_owner
from epidote_workers.transfer.packed import PackedTransport
from epidote_workers.transfer.quantized import codes_for
from epidote_workers.transfer.shared_memory import SharedMemoryTransport
from epidote_workers.transfer.transport import LocalPool, PeerPool, Transport
from epidote_workers.worker_settings import WorkerSettings

logger = logging.getLogger(__name__)


class PeerWorker:
    """One peer: its connection, and its pools once they are asked for."""

    def __init__(self, peers: "Peers", connection: Connection) -> None:
        self._peers, self.connection = peers, connection
        self.codes_agree = False  # found by `kv_agreement`
        self._pools: dict[LocalPool, PeerPool] = {}  # by what they are copied into
        self._attaching = asyncio.Lock()
        self._description: Pools | None = None
        self._untold = TransferMeter()  # copied from it, and it does not know
        self._telling: asyncio.Task[None] | None = None
        connection.closed.add_done_callback(lambda _: self._let_go())

    async def pool(self, ours: LocalPool) -> PeerPool:
        """The peer's pool of the same name, by the best way there is.

        Raises:
            LayoutMismatch: it holds other things than ours.
            ConnectionLost, TimeoutError: the peer is gone or does not answer.
        """
        name = ours.layout.name
        async with self._attaching:
            if ours not in self._pools:
                pool, transport = await self._attach(ours)
                meters = (self._peers.meter, self._untold)
                self._pools[ours] = MeteredPool(pool, name, meters)
                logger.info("pool attached", extra={"pool": name, "transport": transport})
                if self.connection.error is not None:
                    self._let_go()
                    raise self.connection.error
            return self._pools[ours]

    def tell(self) -> None:
        """Let the peer know, soon, what was copied from it; nobody waits for that."""
        if self._telling is not None and not self._telling.done():
            return
        if counts := self._untold.take():
            self._telling = asyncio.create_task(self._tell(counts))

    async def _tell(self, counts: tuple[TransferCount, ...]) -> None:
        try:
            await self.connection.call(
                TAKEN, TakenCall(counts=counts), timeout_s=self._peers.call_timeout_s
            )
        except (EpidoteError, TimeoutError) as error:  # its own metrics' loss, and it is going
            logger.debug("a peer was not told of copies", extra={"error": repr(error)})

    async def _attach(self, ours: LocalPool) -> tuple[PeerPool, str]:
        timeout_s = self._peers.call_timeout_s
        if self._description is None:
            call = self.connection.call(POOLS, Nothing(), timeout_s=timeout_s)
            self._description = await call
        name, where = ours.layout.name, self._description.descriptor_path
        theirs = next((x for x in self._description.layouts if x.name == name), None)
        if theirs is None:
            raise LayoutMismatch(f"the peer has no pool {name!r}")
        is_near = self._description.node_id == self._peers.node_id
        cuda = dict(self._description.cuda_handles).get(name, "")
        nixl = dict(self._description.nixl_handles).get(name, "")
        peers, on_gpu = self._peers, ours.units.is_cuda
        ways: list[tuple[str, Transport, str]] = []  # by what a read costs
        if is_near and cuda and on_gpu:
            ways.append(("cuda_ipc", peers.cuda, cuda))
        if is_near and where and not on_gpu:
            ways.append(("shared_memory", peers.shared, where))
        if nixl and peers.nixl is not None and not codes_for(peers.kv_transfer_dtype, ours.layout):
            ways.append(("nixl", peers.nixl, nixl))
        for name_of_way, transport, handle in ways:
            try:
                pool = await transport.attach(self.connection, handle, ours.layout, theirs)
                return pool, name_of_way
            except NoDescriptor as error:  # one host, but other mounts or GPUs: containers
                reason = {"transport": name_of_way, "reason": str(error)}
                logger.warning("pool not reached, trying another way", extra=reason)
        packed = await peers.packed.attach(self.connection, where, ours.layout, theirs)
        codes = codes_for(peers.kv_transfer_dtype, ours.layout)
        return packed, f"packed_{codes}" if codes else "packed"

    def _let_go(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()


class Peers:
    """All peers of one worker, connected when first needed and again after a loss."""

    def __init__(
        self, node_id: str, copies: CopyThread, settings: WorkerSettings, *, secret: bytes | None
    ) -> None:
        self.kv_transfer_dtype = settings.kv_transfer_dtype
        self.node_id, self.call_timeout_s = node_id, settings.call_timeout_s
        self.shared: Transport = SharedMemoryTransport(copies)
        self.cuda: Transport = CudaIpcTransport(copies)
        self.packed: Transport = PackedTransport(copies, settings.kv_transfer_dtype)
        self.nixl: Transport | None = None  # known when the pools are
        self.meter = TransferMeter()  # of this worker: in from here, out as peers say
        self._secret = secret
        self._peers: dict[str, PeerWorker] = {}
        self._connecting: dict[str, asyncio.Lock] = {}

    async def get(self, worker_id: str, address: str | None) -> PeerWorker:
        """The peer, connected.

        Raises:
            ConnectionLost: it can't be reached, or nobody told its address.
        """
        if address is None:
            raise ConnectionLost(f"nobody told the address of {worker_id}")
        async with self._connecting.setdefault(address, asyncio.Lock()):
            known = self._peers.get(address)
            if known is None or known.connection.error is not None:
                connection = await connect(
                    address, timeout_s=self.call_timeout_s, secret=self._secret
                )
                known = self._peers[address] = PeerWorker(self, connection)
                connection.closed.add_done_callback(lambda _: self._drop(address, connection))
            return known

    def _drop(self, address: str, connection: Connection) -> None:
        known = self._peers.get(address)
        if known is not None and known.connection is connection:
            del self._peers[address]
            self._connecting.pop(address, None)

    def tell(self) -> None:
        """Let every peer know what was copied from it since the last time."""
        for peer in self._peers.values():
            peer.tell()

    async def taken(self, call: TakenCall) -> Nothing:
        """A peer tells what it copied from here."""
        self.meter.add(seen_by_owner(call.counts))
        return Nothing()

    def close(self) -> None:
        """Close every connection: the peers release what they lent."""
        for peer in list(self._peers.values()):
            peer.connection.close("this worker stops")
