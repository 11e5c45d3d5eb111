"""This file is about a fleet inside one process, for tests and benches: workers, client, retries.

The workers talk over real sockets and map each other's pools as separate processes would.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from epidote_core.errors import EpidoteError, InvalidRequest, Overloaded, WorkerLost
from epidote_core.generation import Choice, GenerateRequest, MediaPixels, Route
from epidote_core.roles import Role, Stage, WorkerState
from epidote_engine.settings import EngineConfig
from epidote_workers.client import FleetClient
from epidote_workers.engine_protocol import Allocate, EngineFactory, EngineLike, real_engine
from epidote_workers.self_check import TinyPixels
from epidote_workers.worker import Worker
from epidote_workers.worker_settings import WorkerSettings

AVOID_S = 0.05  # a worker that refused is worth a try soon
GIVE_UP_S = 120.0
SETTLE_S = 30.0  # releases of what has just ended are still on their way
PATIENT = WorkerSettings(  # a test's answer must not depend on how fast the machine is
    socket_dir=Path(),
    max_encode_queue=16,
    media_timeout_s=120.0,
    reserve_timeout_s=120.0,
    call_timeout_s=60.0,
)


class Lost(EpidoteError):
    """A request lost its worker; `tokens` by choice are what came before."""

    def __init__(self, worker_id: str, tokens: dict[int, list[int]]) -> None:
        super().__init__(f"worker {worker_id} was lost")
        self.worker_id, self.tokens = worker_id, tokens


class InProcessFleet:
    """Workers by id, the engines inside them, and a client of them all."""

    def __init__(
        self,
        directory: Path,
        config: EngineConfig,
        *,
        make_engine: EngineFactory = real_engine,
        tiny_pixels: TinyPixels | None = None,
        settings: WorkerSettings = PATIENT,
    ) -> None:
        """`config` is every worker's, but for its role; `directory` holds the sockets.

        `settings` hold for all, but for what `add` knows better: directory, address, host.
        """
        self.directory, self.config, self.settings = directory, config, settings
        self.client = FleetClient()
        self.workers: dict[str, Worker] = {}
        self.engines: dict[str, EngineLike] = {}
        self._make_engine, self._tiny_pixels = make_engine, tiny_pixels

    async def add(self, worker_id: str, role: Role, *, tcp_host: str | None = None) -> Worker:
        """Start one more worker; with `tcp_host` it is on a host of its own, as far as it knows."""

        def make(config: EngineConfig, allocate: Allocate) -> EngineLike:
            self.engines[worker_id] = engine = self._make_engine(config, allocate)
            return engine

        worker = self.workers[worker_id] = Worker(
            worker_id,
            replace(self.config, role=role),
            replace(
                self.settings,
                socket_dir=self.directory,
                tcp_host=tcp_host,
                node_id=worker_id if tcp_host else "",
            ),
            make_engine=make,
            tiny_pixels=self._tiny_pixels,
        )
        await worker.start()
        return worker

    async def connect(self) -> None:
        """Tell the client of all workers and wait until it sees them routable."""
        self.client.update_members([worker.view() for worker in self.workers.values()])
        await until(
            lambda: all(view.state is WorkerState.ROUTABLE for view in self.client.workers())
        )

    async def stop(self) -> None:
        await self.client.stop()
        for worker in self.workers.values():
            await worker.stop()

    async def ask(
        self, request: GenerateRequest, route: Route, pixels: Sequence[MediaPixels] = ()
    ) -> dict[int, list[int]]:
        """All tokens by choice.

        Raises:
            Lost: a stage was lost.
            Overloaded, InvalidRequest: as the stages say.
        """
        tokens: dict[int, list[int]] = {choice.index: [] for choice in request.choices}
        by_key = {medium.key: medium for medium in pixels}
        error: Exception | None = None

        async def read() -> None:
            async with aclosing(self.client.generate(request, route)) as stream:
                async for chunks in stream:
                    for chunk in chunks:
                        tokens[chunk.index] += chunk.token_ids

        try:
            async with asyncio.TaskGroup() as group:
                for key, worker_id in route.encode:
                    group.create_task(
                        self.client.encode(worker_id, by_key[key], request_id=request.request_id)
                    )
                group.create_task(read())
        except* (WorkerLost, Overloaded, InvalidRequest) as errors:
            error = errors.exceptions[0]
        if isinstance(error, WorkerLost):
            raise Lost(error.worker_id, tokens)
        if error is not None:
            raise error.with_traceback(None)
        return tokens

    async def ask_until_done(
        self, request: GenerateRequest, pixels: Sequence[MediaPixels], rng: random.Random
    ) -> tuple[list[int], int]:
        """What the gateway does, small: route, and again around lost workers. (tokens, losses)"""
        done: list[int] = []
        avoid: dict[str, float] = {}
        losses, give_up_s = 0, time.monotonic() + GIVE_UP_S
        while len(done) < request.sampling.max_tokens:
            if time.monotonic() > give_up_s:
                raise TimeoutError("the request never ends")
            avoided = {w for w, until_s in avoid.items() if time.monotonic() < until_s}
            route = self.route(pixels, rng, avoided)
            if route is None:
                await asyncio.sleep(0.01)
                continue
            rest = replace(request, choices=(Choice(emitted_token_ids=tuple(done)),))
            try:
                done += (await self.ask(rest, route, pixels))[0]
            except Lost as lost:
                done += lost.tokens[0]
                avoid[lost.worker_id] = time.monotonic() + AVOID_S
                losses += 1
            except Overloaded:
                await asyncio.sleep(0.02)
        return done, losses

    def route(
        self, pixels: Sequence[MediaPixels], rng: random.Random, avoid: Iterable[str] = ()
    ) -> Route | None:
        """Any workers that serve the stages now; None: some stage has none."""
        prefill, decode = self.pick(Stage.PREFILL, rng, avoid), self.pick(Stage.DECODE, rng, avoid)
        encode = [(medium.key, self.pick(Stage.ENCODE, rng, avoid)) for medium in pixels]
        known = tuple((key, worker_id) for key, worker_id in encode if worker_id)
        if not prefill or not decode or len(known) < len(encode):
            return None
        return Route(prefill=prefill, decode=decode, encode=known)

    def pick(self, stage: Stage, rng: random.Random, avoid: Iterable[str] = ()) -> str | None:
        fitting = [
            view.worker_id
            for view in self.client.workers()
            if view.state is WorkerState.ROUTABLE
            and view.role.serves(stage)
            and view.worker_id not in avoid
        ]
        return rng.choice(fitting) if fitting else None

    async def leaks(self) -> dict[str, tuple[str, ...]]:
        """What stays wrong with any healthy worker's bookkeeping; {} when all is idle and sound."""
        give_up_s = time.monotonic() + SETTLE_S
        while (found := await self._unsettled()) and time.monotonic() < give_up_s:
            await asyncio.sleep(0.01)
        return found

    async def _unsettled(self) -> dict[str, tuple[str, ...]]:
        found = {}
        for worker_id, worker in self.workers.items():
            if worker.failure is None:
                conservation = await worker.conservation()
                if conservation.errors or not conservation.is_idle:
                    found[worker_id] = (*conservation.errors, f"idle: {conservation.is_idle}")
        return found


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Look until `condition` holds.

    Raises:
        TimeoutError: it does not.
    """
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(
    fleet: InProcessFleet, roles: Mapping[str, Role]
) -> AsyncIterator[InProcessFleet]:
    """The fleet with workers of these roles, connected; stopped at the end, come what may."""
    try:
        for worker_id, role in roles.items():
            await fleet.add(worker_id, role)
        await fleet.connect()
        yield fleet
    finally:
        await fleet.stop()
