"""This file is about a worker: one engine, one role at a time, the stages it serves."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from epidote_core.generation import MediaPixels
from epidote_core.roles import Role
from epidote_core.worker_view import WorkerLoad, WorkerView
from epidote_engine.events import Event, KvReady
from epidote_engine.settings import EngineConfig
from epidote_gateway.backend import SwitchOutcome
from epidote_workers import messages
from epidote_workers.decode_stage import DecodeStage
from epidote_workers.encode_stage import EncodeStage
from epidote_workers.engine_protocol import EngineFactory, real_engine
from epidote_workers.engine_thread import EngineFailed, EngineThread
from epidote_workers.expert_seats import ExpertSeats
from epidote_workers.identity import model_fingerprint, this_boot
from epidote_workers.inbox import Inboxes
from epidote_workers.lifecycle import DrainPolicy
from epidote_workers.media_fetch import MediaFetcher
from epidote_workers.messages import (
    Conservation,
    DrainCall,
    Nothing,
    Pools,
    RetireCall,
    StatusReport,
    SwitchCall,
)
from epidote_workers.parts import Parts
from epidote_workers.peers import Peers
from epidote_workers.pool_lending import PoolLending
from epidote_workers.prefill_stage import PrefillStage
from epidote_workers.ranks.leader import Ranks
from epidote_workers.ranks.pools import RankDescriptors, with_ranks
from epidote_workers.rpc.address import TcpAddress, UnixAddress
from epidote_workers.rpc.secret import secret_from
from epidote_workers.rpc.server import Server, Service
from epidote_workers.self_check import SelfCheck, TinyPixels, tiny_pixels_of
from epidote_workers.stage_gate import StageGate
from epidote_workers.status_board import StatusBoard
from epidote_workers.switching import Switching
from epidote_workers.transfer.copy_thread import CopyThread
from epidote_workers.transfer.cuda_ipc import DeviceAllocator
from epidote_workers.transfer.descriptor_socket import DescriptorServer
from epidote_workers.transfer.packed import answer_read
from epidote_workers.transfer.shared_pool import SharedMemoryAllocator
from epidote_workers.worker_settings import WorkerSettings

logger = logging.getLogger(__name__)

IDLE_SETTLE_S = 1.0  # releases of work that has just ended are still on their way


class Worker:
    """Serves `generate`, `prefill`, `encode`, `fetch_media`, `status` and administration.

    All methods belong to the event loop that `start` ran on.
    """

    def __init__(
        self,
        worker_id: str,
        config: EngineConfig,
        settings: WorkerSettings,
        *,
        make_engine: EngineFactory = real_engine,
        tiny_pixels: TinyPixels | None = None,
        retire: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        """Cheap: nothing is loaded, nothing listens before `start`.

        `tiny_pixels` makes the self-check's picture; None: as the model wants it. `retire` leaves
        the fleet within some seconds; None: this worker is in none, and only drains.
        """
        self._retire_from_fleet = retire
        self.worker_id = worker_id
        self._config = replace(config, worker_id=worker_id)
        self._settings = settings
        self._make_engine, self._tiny_pixels = make_engine, tiny_pixels
        self._node_id = settings.node_id or this_boot()
        self.seats = ExpertSeats(settings.tensor_parallel_size)
        self._address = ""
        self._server: Server | None = None
        self._descriptors: DescriptorServer | None = None
        self._parts: Parts | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # Life

    async def listen(self) -> None:
        """Open the sockets: `address` is known, `view()` and the status stream say STARTING.

        Raises:
            OSError: the directory is not ours or the path too long.
        """
        settings, loop = self._settings, asyncio.get_running_loop()
        self._failed: asyncio.Future[str] = loop.create_future()
        settings.socket_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        on_gpu = self._config.device.startswith("cuda")
        self._allocator: SharedMemoryAllocator | DeviceAllocator = (
            DeviceAllocator(self._config.device) if on_gpu else SharedMemoryAllocator()
        )
        self._copies = CopyThread()
        secret = secret_from()
        gate = StageGate(self.worker_id, self._config.role, settings.max_requests)
        inboxes = Inboxes()
        self._ranks = Ranks(
            settings.tensor_parallel_size, settings.socket_dir, self.worker_id, self._make_engine
        )
        engine = EngineThread(
            lambda: self._ranks.make_engine(self._config, self._allocator.allocate),
            worker_id=self.worker_id,
            on_events=self._on_events,
            on_layers=self._on_layers,
            on_failure=lambda reason: self._switching.crash(reason),
        )
        peers = Peers(self._node_id, self._copies, settings, secret=secret)
        self._parts = Parts(
            worker_id=self.worker_id,
            settings=settings,
            engine=engine,
            gate=gate,
            inboxes=inboxes,
            peers=peers,
            computes_on_cpu=self._config.device == "cpu",
        )
        self._lending = PoolLending(self._node_id, self._parts.pools)
        self._encoder = EncodeStage(self._parts)
        self._fetcher = MediaFetcher(self._parts, self._encoder)
        self._board = StatusBoard(
            self._blank_report(), self.seats, life=lambda: gate.life, adjust=self._adjust_load
        )
        check = SelfCheck(self._parts, self._encoder, self._tiny)
        self._switching = Switching(
            self._parts,
            self._encoder,
            check,
            on_change=self._board.publish,
            on_failed=self._on_failed,
        )
        self._server = Server(self._service())
        unix = UnixAddress(str(settings.socket_dir / f"{self.worker_id}.sock"))
        self._address = str(await self._server.listen(unix))
        self._descriptors = DescriptorServer(
            str(settings.socket_dir / f"{self.worker_id}.fds"),
            RankDescriptors(self._allocator, self._ranks),
        )
        if settings.tcp_host is not None:
            tcp = TcpAddress(settings.tcp_host, 0)
            self._address = str(await self._server.listen(tcp, secret=secret))

    async def start(self, role: Role | None = None) -> None:
        """Listen if that is still to do, load the engine in its thread, verify, become routable.

        `role` instead of the configuration's. Raises what loading raised, or `EngineFailed` if the
        self-check failed; the worker is then FAILED. Whatever happens, `stop` must follow.
        """
        if role is not None:
            self._config = replace(self._config, role=role)
        if self._server is None:
            await self.listen()
        parts = self._running
        parts.gate.life = replace(parts.gate.life, role=self._config.role)
        try:
            fingerprint = await asyncio.to_thread(model_fingerprint, self._config.model)
            if self._tiny_pixels is None:
                self._tiny_pixels = await asyncio.to_thread(tiny_pixels_of, self._config.model)
            engine = await parts.engine.start()
        except Exception as error:
            self._switching.crash(f"not loaded: {type(error).__name__}: {error}")
            raise
        parts.take_pools(engine, self._ranks, fingerprint)
        await asyncio.to_thread(parts.check_codes)
        if self._settings.tcp_host is not None and self._settings.uses_nixl:
            parts.peers.nixl = await self._lending.open_nixl(
                self.worker_id, self._copies, parts.peers.packed
            )
        self._tasks.append(asyncio.create_task(self._watch()))
        await self._switching.first_role()
        if self.failure is not None:
            raise EngineFailed(self.failure, worker_id=self.worker_id)

    async def stop(self) -> None:
        """Drop every stream (clients see the connection end), stop the engine, free the pools.

        Idempotent; takes as long as the engine's step under way.
        """
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._server is not None:
            await self._server.close()
            self._server = None
            self._running.peers.close()
            await self._running.engine.stop()
            await asyncio.to_thread(self._ranks.close)
            self._lending.close()
            self._copies.close()
            self._allocator.close()
        if self._descriptors is not None:
            await asyncio.to_thread(self._descriptors.close)
            self._descriptors = None

    # What others may know

    @property
    def address(self) -> str:
        """Where clients connect; known after `listen`, "" before."""
        return self._address

    def view(self) -> WorkerView:
        """The worker now, from memory. Without cache names (`block_hashes`, `media_keys`)."""
        life = self._running.gate.life
        return WorkerView(
            worker_id=self.worker_id,
            role=life.role,
            state=life.state,
            epoch=life.epoch,
            address=self._address,
            node_id=self._node_id,
            pid=os.getpid(),
            load=self._board.load,
        )

    @property
    def failure(self) -> str | None:
        """Why the worker is unhealthy (engine thread died or hangs), None while it is well."""
        return self._failed.result() if self._failed.done() else None

    @property
    def failed(self) -> "asyncio.Future[str]":
        """Done, with the reason, as soon as the worker fails for good. Only to be read."""
        return self._failed

    # Administration

    async def switch_role(
        self,
        role: Role,
        *,
        deadline_s: float,
        drain: DrainPolicy = DrainPolicy.MIGRATE,
        grace_s: float = 0.25,
        expected_epoch: int | None = None,
    ) -> SwitchOutcome:
        """Drain, switch, verify; never raises for a switch that did not work: `ok` is False.

        Not drained after `deadline_s`, or the new role fails its check: back in the old role.
        Another switch under way, or another epoch than expected: refused, nothing happens.
        """
        return await self._switching.switch(
            SwitchCall(
                role=role,
                deadline_s=deadline_s,
                drain=drain,
                grace_s=grace_s,
                expected_epoch=expected_epoch,
            )
        )

    async def drain(self, *, deadline_s: float, grace_s: float = 0.25) -> None:
        """Take no more work, for ever; before `stop`.

        Finishes prefill and encode work; decode streams are handed back after `grace_s` and go on
        elsewhere. Returns when nothing is left, at the latest after `deadline_s`.
        """
        await self._switching.drain_for_ever(deadline_s=deadline_s, grace_s=grace_s)

    async def conservation(self) -> Conservation:
        """What the engine's and this worker's bookkeeping find wrong.

        Looks for up to a second until the worker is idle, since what has just ended may still be
        being released. What is held while nothing runs is an error.
        """
        parts = self._running
        for _ in range(int(IDLE_SETTLE_S / 0.02)):
            errors, is_drained = await parts.engine.call(
                lambda engine: (engine.conservation_errors(), engine.is_drained())
            )
            is_quiet = not (+parts.gate.counts) and not self._encoder.num_queued
            if is_quiet and is_drained and not errors:
                break
            await asyncio.sleep(0.02)
        if is_quiet:
            for what, count in (
                ("open inboxes", len(parts.inboxes)),
                ("media on their way", self._fetcher.num_running),
            ):
                if count:
                    errors = [*errors, f"{count} {what} without a request"]
            if not is_drained:
                errors = [*errors, "the engine holds work that no stage knows of"]
        return Conservation(errors=tuple(errors), is_idle=is_quiet and is_drained)

    # Inside

    @property
    def _running(self) -> Parts:
        assert self._parts is not None, "listen or start first"
        return self._parts

    def _service(self) -> Service:
        service, parts = Service(), self._running
        decode = DecodeStage(parts, self._fetcher)
        prefill = PrefillStage(parts, self._fetcher)
        service.add_stream(messages.GENERATE, decode.generate)
        service.add_stream(messages.PREFILL, prefill.prefill)
        service.add_call(messages.ENCODE, self._encoder.encode)
        service.add_stream(messages.FETCH_MEDIA, self._encoder.fetch_media)
        service.add_call(messages.POOLS, self._pools)
        service.add_stream(messages.READ, lambda call: answer_read(call, parts.lent))
        service.add_call(messages.TAKEN, parts.peers.taken)
        service.add_stream(messages.STATUS, self._board.status)
        service.add_call(messages.SWITCH_ROLE, self._switching.switch)
        service.add_call(messages.PLACE_EXPERTS, self.seats.service(parts.engine))
        service.add_call(messages.DRAIN, self._drain)
        service.add_call(messages.RETIRE, self._retire)
        service.add_call(messages.CONSERVATION, self._conservation)
        return service

    async def _pools(self, _: Nothing) -> Pools:
        path = self._descriptors.path if self._descriptors is not None else ""
        described = self._lending.describe(path, self._allocator)
        scales = await self._running.kv_scales()
        return replace(with_ranks(described, self._running.ranks), kv_scales=scales)

    async def _drain(self, call: DrainCall) -> Nothing:
        await self.drain(deadline_s=call.deadline_s, grace_s=call.grace_s)
        return Nothing()

    async def _retire(self, call: RetireCall) -> Nothing:
        if self._retire_from_fleet is not None:
            await self._retire_from_fleet(call.deadline_s)
        else:
            await self.drain(deadline_s=call.deadline_s)
        return Nothing()

    async def _conservation(self, _: Nothing) -> Conservation:
        return await self.conservation()

    def _tiny(self, key: str) -> MediaPixels | None:
        assert self._tiny_pixels is not None, "set before the engine starts"
        return self._tiny_pixels(key)

    def _blank_report(self) -> StatusReport:
        life = self._running.gate.life
        return StatusReport(
            worker_id=self.worker_id,
            role=life.role,
            state=life.state,
            epoch=life.epoch,
            node_id=self._node_id,
            pid=os.getpid(),
            block_size=self._config.block_size,
            load=WorkerLoad(),
        )

    def _adjust_load(self, load: WorkerLoad) -> WorkerLoad:
        """Media that the engine has not seen yet count as being encoded; transfers pass it by."""
        num_encoding = max(load.num_encoding, self._encoder.num_queued)
        return replace(load, num_encoding=num_encoding, transfers=self._running.peers.meter.counts)

    def _on_events(self, events: list[Event]) -> None:
        for event in self._running.inboxes.deliver(events):
            self._encoder.note(event)

    def _on_layers(self, spans: list[KvReady]) -> None:
        self._running.inboxes.deliver(spans)

    def _on_failed(self, reason: str) -> None:
        logger.error("worker failed", extra={"worker": self.worker_id, "reason": reason})
        if not self._failed.done():
            self._failed.set_result(reason)
        self._running.inboxes.fail_all(EngineFailed(reason, worker_id=self.worker_id))

    async def _watch(self) -> None:
        """Keep the status fresh; notice an engine that hangs."""
        settings, engine = self._settings, self._running.engine
        while self.failure is None:
            refresh = asyncio.ensure_future(self._board.refresh(engine))
            while not (await asyncio.wait([refresh], timeout=0.5))[0]:
                reason = self._ranks.lost()  # the others may wait for it for ever
                if engine.busy_s > settings.hung_after_s:
                    reason = reason or f"the engine hangs for {engine.busy_s:.0f} s"
                if reason:
                    refresh.cancel()
                    self._switching.crash(reason)
                    return
            if refresh.exception() is not None:
                return  # the engine's end is reported by its own callback
            self._running.peers.tell()
            self._encoder.tidy(time.monotonic())
            await asyncio.sleep(settings.status_every_s)
