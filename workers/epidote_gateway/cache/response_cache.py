"""This file is about the response cache of one gateway: its life and its administration."""

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from random import Random, SystemRandom

from prometheus_client import CollectorRegistry

from epidote_core import metric_names as names
from epidote_core.generation import TokenChunk
from epidote_gateway.answers import Job
from epidote_gateway.cache.admission import admit
from epidote_gateway.cache.cache_metrics import CacheMetrics
from epidote_gateway.cache.cache_state import CacheState
from epidote_gateway.cache.catalog import Catalog
from epidote_gateway.cache.entry import Entry
from epidote_gateway.cache.eviction import Eviction
from epidote_gateway.cache.judges import Judges, make_judges
from epidote_gateway.cache.keeper import Keeper
from epidote_gateway.cache.lineage import Lineages
from epidote_gateway.cache.lookup import Found, Miss, look_up
from epidote_gateway.cache.maintenance import FOLLOW_S, TIDY_S, Maintenance, forever
from epidote_gateway.cache.neighbours import EXACT_LIMIT, Neighbours
from epidote_gateway.cache.policy import CachePolicy
from epidote_gateway.cache.policy_file import PolicyFile
from epidote_gateway.cache.protocols import DocumentStore, Meaning, SecondCheck
from epidote_gateway.cache.relaxation import Relaxation
from epidote_gateway.cache.selection import Barriers, Selection
from epidote_gateway.cache.sharing import SHARE_S, Sharing
from epidote_gateway.cache.store_errors import StoreUnavailable
from epidote_gateway.cache.worthwhile import HitRatios

logger = logging.getLogger(__name__)
REMOVAL_S = 5.0  # an administrator waits; SQLite itself waits 2 s for another process's write


@dataclass(frozen=True, kw_only=True)
class Collaborators:
    """What a cache is made of, besides its policy. `revision` names the model's weights."""

    meaning: Meaning
    store: DocumentStore
    second_check: SecondCheck | None = None
    policy_file: PolicyFile | None = None  # followed, if given
    registry: CollectorRegistry | None = None
    revision: str = ""
    exact_limit: int = EXACT_LIMIT
    rng: Random | None = None
    clock: Callable[[], float] = time.monotonic
    unix_time: Callable[[], float] = time.time


class ResponseCache:
    """`start` it before use, `aclose` it at the end."""

    def __init__(self, policy: CachePolicy, collaborators: Collaborators) -> None:
        self._first_policy = policy
        self.second_check = collaborators.second_check  # may be set until `start`
        self._with = collaborators
        self._state: CacheState | None = None
        self._maintenance: Maintenance | None = None
        self._sharing: Sharing | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._changing = asyncio.Lock()
        self._is_closed = False

    # Life.

    async def start(self) -> None:
        """Load the models and begin to load the entries. Further calls wait for the first.

        Raises what the embedder raises: a gateway that can't honour its policy must not start.
        """
        async with self._changing:
            if self._state is not None:
                return
            judges = await make_judges(self._first_policy, self._with.meaning)
            state = self._state = self._make_state(judges)
            self._maintenance = maintenance = Maintenance(state)
            file = self._with.policy_file
            self._sharing = sharing = Sharing(
                state, self._with.store, self.apply, lambda: file.digest if file else ""
            )
            self._tasks = [
                asyncio.create_task(work)
                for work in (
                    state.keeper.write(),
                    forever(maintenance.follow, FOLLOW_S),
                    forever(maintenance.tidy, TIDY_S),
                    forever(sharing.round, SHARE_S),
                )
            ]
            if file is not None:
                watching = file.watch(self.apply, state.metrics.policy_failures.inc)
                self._tasks.append(asyncio.create_task(watching))

    def _make_state(self, judges: Judges) -> CacheState:
        given = self._with
        rng = given.rng or SystemRandom()
        precision, dimensions = judges.policy.embedder.precision, judges.embedder.dimensions
        catalog = Catalog(lambda: Neighbours(dimensions, precision, exact_limit=given.exact_limit))
        metrics = CacheMetrics(given.registry, self._gauges)
        return CacheState(
            judges=judges,
            catalog=catalog,
            keeper=Keeper(given.store, metrics.store_failures.inc),
            relaxation=Relaxation(given.clock),
            eviction=Eviction(catalog, rng, lambda category: self.state.ttl_s(category)),
            ratios=HitRatios(rng),
            barriers=Barriers(given.clock),
            lineages=Lineages(),
            metrics=metrics,
            second_check=self.second_check,
            rng=rng,
            clock=given.clock,
            unix_time=given.unix_time,
            revision=given.revision,
        )

    @property
    def state(self) -> CacheState:
        assert self._state is not None, "start first"
        return self._state

    @property
    def policy(self) -> CachePolicy:
        return self._first_policy if self._state is None else self._state.policy

    @property
    def has_loaded(self) -> bool:
        """Whether the entries of the store are known."""
        return self._maintenance is not None and self._maintenance.has_loaded.is_set()

    async def loaded(self) -> None:
        """Return when the entries of the store are known."""
        await self.start()
        assert self._maintenance is not None
        await self._maintenance.has_loaded.wait()

    async def flush_writes(self) -> None:
        """Return when all that was kept until now is in the store."""
        await self.state.keeper.flush()

    async def aclose(self) -> None:
        """Store what is not stored yet, then stop. Further calls do nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._state is not None:
            try:
                async with asyncio.timeout(5.0):
                    await self._send_reports()
                    await self._state.keeper.flush()
            except TimeoutError:
                logger.warning("the last answers were not stored in time")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._with.store.aclose()
        if self._state is not None:
            await self._state.judges.embedder.aclose()

    # Requests.

    async def look_up(self, job: Job, is_under_way: Callable[[Hashable], bool]) -> Found:
        await self.start()
        return await look_up(self.state, job, is_under_way=is_under_way)

    def admit(self, job: Job, miss: Miss, chunks: Sequence[TokenChunk]) -> Entry | None:
        """Keep a whole answer, if the policy has it."""
        return admit(
            self.state,
            miss,
            chunks,
            num_choices=len(job.request.choices),
            prompt_tokens=len(job.request.prompt_token_ids),
            took_s=self.state.clock() - miss.begun_s,
        )

    # Administration.

    async def apply(self, policy: CachePolicy) -> None:
        """Judge by `policy` from now on. Entries stay; on any error the old one stays in force."""
        await self.start()
        async with self._changing:
            assert self._maintenance is not None
            before = self.state.judges
            judges = await make_judges(policy, self._with.meaning)
            await self._maintenance.change_judges(judges)
            if judges.embedder is not before.embedder:
                await before.embedder.aclose()
        logger.info("cache policy applied", extra={"categories": len(policy.categories)})

    async def put_policy(self, policy: CachePolicy) -> None:
        """`apply` in every gateway on the store, until the policy file changes.

        Raises what `apply` raises, and StoreUnavailable: in force here, and the others don't know.
        """
        await self.apply(policy)
        assert self._sharing is not None
        await self._sharing.publish(policy)

    async def invalidate(self, selection: Selection, *, dry_run: bool = False) -> list[Entry]:
        """Entries that match, gone unless `dry_run`; answers under way will not be kept."""
        await self.loaded()
        state = self.state
        now_s = state.unix_time()
        chosen = [entry for entry in state.catalog if selection.matches(entry, now_s)]
        if not dry_run:
            state.barriers.add(selection)
            for entry in chosen:
                state.drop(entry, "invalidated")
        return chosen

    def evict(self, entry_id: str) -> bool:
        """False: there is none of this id."""
        entry = self.state.catalog.get(entry_id)
        return entry is not None and self.state.drop(entry, "invalidated")

    async def removed(self) -> int:
        """Wait until the store has removed what was; how many are owed, if it takes too long."""
        return await self.state.keeper.removed(REMOVAL_S)

    async def report_wrong(self, entry_id: str, tenant: str | None) -> float | None:
        """This hit was wrong: evict it and tighten its category; returns the threshold now.

        `tenant` None: an administrator, who tightens for all. A tenant tightens for itself, and
        another one's entry counts as unknown: None.
        """
        state = self.state
        entry = state.catalog.get(entry_id)
        if entry is None or tenant not in (None, entry.tenant):
            return None
        state.drop(entry, "invalidated")
        category = state.policy.category(entry.category)
        state.relaxation.report(category, state.policy, tenant or "")
        state.metrics.wrong_hits.labels(entry.category).inc()
        await self._send_reports()
        return state.bounds(category, tenant or "").plain_threshold

    async def _send_reports(self) -> None:
        assert self._sharing is not None, "start first"
        try:
            await self._sharing.send()
        except StoreUnavailable as error:
            logger.warning("reports are owed to the store", extra={"error": str(error)})

    def tell_pressure(self, pressure: float) -> None:
        """The planner's signal; raises ValueError outside [0, 1]."""
        self.state.relaxation.tell(pressure, self.state.policy)

    def _gauges(self) -> Iterable[tuple[str, str, float]]:
        if self._state is None:
            return
        state = self._state
        for name, ratio in state.ratios.all().items():
            yield names.EPIDOTE_CACHE_HIT_RATIO, name, ratio
        for category in state.policy.categories:
            threshold = state.bounds(category).threshold
            yield names.EPIDOTE_CACHE_THRESHOLD, category.name, threshold
        for name, shelf in state.catalog.shelves.items():
            yield names.EPIDOTE_CACHE_ENTRIES, name, len(shelf)
            yield names.EPIDOTE_CACHE_BYTES, name, shelf.num_bytes
        yield names.EPIDOTE_CACHE_PRESSURE, "", state.relaxation.pressure(state.policy)
