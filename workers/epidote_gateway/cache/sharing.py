"""This file is about what gateways on one store tell each other besides entries.

    ["tighten", category, threshold, tenant]   how much reports of wrong hits added; tenant "": all
    ["policy", revision, file]                 the policy that an administrator put in force over a
                                               policy file of this content

Both are notes in the store, read every second: they outlive a restart. A note about another
threshold, model or policy file is nobody's business: a new threshold knows the old one's reports,
and a changed file replaces what was put over the one before.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping

from epidote_gateway.cache.cache_state import CacheState
from epidote_gateway.cache.policy import CachePolicy, InvalidPolicy, parse_policy
from epidote_gateway.cache.protocols import DocumentStore
from epidote_gateway.cache.relaxation import Report
from epidote_gateway.cache.store_errors import StoreUnavailable

logger = logging.getLogger(__name__)
SHARE_S = 1.0  # how late another gateway's news are known


class Sharing:
    """One gateway's part. `file()` names the content of its policy file, "" without one."""

    def __init__(
        self,
        state: CacheState,
        store: DocumentStore,
        apply: Callable[[CachePolicy], Awaitable[None]],
        file: Callable[[], str],
    ) -> None:
        self._state = state
        self._store = store
        self._apply = apply
        self._file = file
        self._note = self._policy_note()
        self._sending = asyncio.Lock()
        self._seen = ""  # the last policy that was taken from the store or put there

    def _policy_note(self) -> str:
        return json.dumps(["policy", self._state.revision, self._file()])

    async def round(self) -> None:
        """Tell what is not told yet, then hear the others. Raises StoreUnavailable."""
        await self.send()
        if self._policy_note() != self._note:
            await self._store.put_note(self._note, "")
            self._note, self._seen = self._policy_note(), ""
        notes = await self._store.notes()
        self._state.relaxation.take(_reports(notes))
        await self._follow_policy(notes.get(self._note, ""))

    async def send(self) -> None:
        """Reports of this gateway, and the end of those that a new threshold made void."""
        relaxation = self._state.relaxation
        async with self._sending:  # nothing is told twice
            for report in list(relaxation.void):
                await self._store.put_note(_name(report), "")
                relaxation.void.discard(report)
            for report, amount in list(relaxation.unsent.items()):
                await self._store.add_note(_name(report), amount)
                left = relaxation.unsent.pop(report, amount) - amount
                if left > 0.0:  # reported while the store was busy
                    relaxation.unsent[report] = left

    async def publish(self, policy: CachePolicy) -> None:
        """Let every gateway judge by `policy`, which is in force here already.

        Raises:
            StoreUnavailable: saying that the others don't know.
        """
        text = json.dumps(policy.model_dump(mode="json", by_alias=True), sort_keys=True)
        self._note = self._policy_note()
        try:
            await self._store.put_note(self._note, text)
        except StoreUnavailable as error:
            message = f"the policy is in force in this gateway only, until it restarts: {error}"
            raise StoreUnavailable(message) from error
        self._seen = text

    async def _follow_policy(self, text: str) -> None:
        if not text or text == self._seen:
            return
        self._seen = text
        try:
            policy = parse_policy(json.loads(text))
            if policy != self._state.policy:
                await self._apply(policy)
        except (InvalidPolicy, ValueError) as error:  # of another version of this program
            self._state.metrics.policy_failures.inc()
            logger.warning("cache policy of another gateway refused: %s", error)


def _name(report: Report) -> str:
    return json.dumps(["tighten", *report])


def _reports(notes: Mapping[str, str]) -> dict[Report, float]:
    found: dict[Report, float] = {}
    for name, text in notes.items():
        try:
            kind, *rest = json.loads(name)
            if kind == "tighten":
                category, threshold, tenant = rest
                found[(category, threshold, tenant)] = float(text)
        except ValueError:
            logger.warning("a note in the cache store is of another version, and skipped")
    return found
