"""This file is about letting work into a worker's stages, and getting it out again for a drain."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from epidote_core.errors import Overloaded, WorkerLost
from epidote_core.roles import Role, Stage, WorkerState
from epidote_workers.lifecycle import Life


class Visit:
    """One piece of work inside a stage."""

    def __init__(self, worker_id: str) -> None:
        self._worker_id = worker_id
        self._interrupt: Callable[[], None] | None = None
        self._is_moved = False

    def move(self) -> None:
        """Ask the work to end as `WorkerLost`: the gateway continues it elsewhere."""
        self._is_moved = True
        if self._interrupt is not None:
            self._interrupt()

    @property
    def moved_error(self) -> WorkerLost:
        return WorkerLost("moved: the worker drains", worker_id=self._worker_id, is_planned=True)

    @contextmanager
    def when_moved(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Call `interrupt` as soon as the work shall move (at once if it shall already)."""
        self._interrupt = interrupt
        if self._is_moved:
            interrupt()
        try:
            yield
        finally:
            self._interrupt = None

    @asynccontextmanager
    async def movable(self) -> AsyncGenerator[None, None]:
        """A block that `move` ends with `WorkerLost`; never around a `yield` to the outside."""
        try:
            async with asyncio.timeout(None) as scope:
                loop = asyncio.get_running_loop()
                with self.when_moved(lambda: scope.reschedule(loop.time())):
                    yield
        except TimeoutError:
            if scope.expired():
                raise self.moved_error from None
            raise


class StageGate:
    """Counts the work in every stage and refuses what the worker's role or state does not allow."""

    def __init__(self, worker_id: str, role: Role, max_visits: int) -> None:
        self.life = Life(role=role)
        self._worker_id, self._max_visits = worker_id, max_visits
        self._visits: dict[Visit, Stage] = {}
        self._changed: asyncio.Event = asyncio.Event()

    @property
    def counts(self) -> Counter[Stage]:
        return Counter(self._visits.values())

    def check(self, stage: Stage) -> None:
        """Whether new work may come in.

        Raises:
            WorkerLost: this worker does not serve the stage now; another may.
        """
        if not self.life.takes_work or not self.life.role.serves(stage):
            state = f"{self.life.state} as {self.life.role}"
            raise WorkerLost(
                f"worker {self._worker_id} is {state}, it takes no {stage} work",
                worker_id=self._worker_id,
                is_planned=self.life.state is not WorkerState.FAILED,
            )

    @contextmanager
    def admit(self, stage: Stage) -> Iterator[Visit]:
        """Be inside `stage` for the length of the block.

        Raises:
            WorkerLost: see `check`.
            Overloaded: the stage is full.
        """
        self.check(stage)
        if self.counts[stage] >= self._max_visits:
            raise Overloaded(f"{self._max_visits} {stage} requests here", retry_after_s=0.1)
        visit = Visit(self._worker_id)
        self._visits[visit] = stage
        try:
            yield visit
        finally:
            del self._visits[visit]
            self._changed.set()

    def move(self, stage: Stage) -> None:
        """Ask everything inside `stage` to end as `WorkerLost`."""
        for visit, where in list(self._visits.items()):
            if where is stage:
                visit.move()

    async def emptied(self) -> None:
        """Wait until no stage holds any work. The caller bounds it."""
        while self._visits:
            self._changed.clear()
            await self._changed.wait()
