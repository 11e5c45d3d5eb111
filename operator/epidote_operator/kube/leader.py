"""This file is about leader election by a Lease: of several operators, one acts.

As in client-go: the holder renews; another takes over when the lease has not been renewed for its
duration, as seen by its own clock. Writes are conditional on the resource version, so two can't
both win. A leader that can't renew stops acting before others may begin. Releases that watch the
same namespaces have Leases of their own: `rivals`.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.errors import Conflict, KubeError
from epidote_operator.kube.rivals import API, LABEL, WATCHES, Rival, Rivals, shown

logger = logging.getLogger(__name__)

LEASE_S, RENEW_S = 15.0, 3.0
SAFETY_S = 5.0  # before the lease's end a leader that could not renew stops acting


@dataclass
class LeaderElection:
    """One candidate, `identity`, for the Lease `name`. `monotonic` is this process's clock.

    `rivals` None: no other release is looked for. `stands_by` says which one keeps us from leading;
    "": none, or another one of our own release leads.
    """

    api: KubeApi
    namespace: str
    name: str
    identity: str
    monotonic: Callable[[], float]
    lease_s: float = LEASE_S
    renew_s: float = RENEW_S
    safety_s: float = SAFETY_S
    turn: Callable[[], None] = lambda: None  # called each time the loop comes round
    rivals: Rivals | None = None
    stands_by: str = ""
    _holds: bool = False  # the lease was ours when we saw it last
    _renewed_s: float = float("-inf")
    _seen: tuple[str, str] = ("", "")  # holder and renewal as last seen
    _seen_s: float = float("-inf")
    _heard_s: float = float("-inf")  # when the lease was read or written last

    @property
    def is_leader(self) -> bool:
        """Whether we may act now."""
        return self.monotonic() - self._renewed_s < self.lease_s - self.safety_s

    def trouble(self) -> str:
        """Why nobody here knows who leads; "": the lease was heard of lately."""
        silent_s = self.monotonic() - self._heard_s
        if silent_s < 2 * self.lease_s:
            return ""
        since = f"for {silent_s:.0f} s" if silent_s != float("inf") else "yet"
        return f"the lease {self.name} could not be read or renewed {since}"

    async def run(self) -> None:
        """Try to become and stay the leader, until cancelled; `release` should follow."""
        while True:
            self.turn()
            was_leader = self.is_leader
            try:
                await self.attempt()
                self._heard_s = self.monotonic()
            except KubeError as error:  # away, or no token: the lease runs out by itself
                logger.warning("lease not renewed", extra={"error": str(error)})
            if was_leader != self.is_leader:
                logger.info("leadership changed", extra={"leads": self.is_leader})
            await asyncio.sleep(self.renew_s)

    async def attempt(self) -> None:
        """Renew, or take the lease if it is free or has run out and no rival holds one."""
        started_s = self.monotonic()
        lease = await self.api.get(self._path)
        holder = ((lease or {}).get("spec") or {}).get("holderIdentity") or ""
        if lease is not None and self._is_anothers(lease, started_s):
            self._holds, self.stands_by = False, ""
            return
        if holder != self.identity and await self._are_in_our_way():
            return
        lease = await self._take(lease)
        if lease is None:  # another candidate was first
            return
        self._holds = True
        # Without a gap nobody else can have begun: their looks, too, come after their writes.
        if not self.is_leader and (found := await self._are_in_our_way()):
            if self.rivals is not None and found[0].rank < self.rivals.rank(lease):
                await self._give_up(lease)
            return
        self.stands_by = ""
        self._renewed_s = started_s

    def _is_anothers(self, lease: Manifest, now_s: float) -> bool:
        """Whether somebody else of our release holds it, and may still be there."""
        spec = lease.get("spec") or {}
        holder, renewed = spec.get("holderIdentity") or "", spec.get("renewTime") or ""
        if (holder, renewed) != self._seen:
            self._seen, self._seen_s = (holder, renewed), now_s
        duration_s = float(spec.get("leaseDurationSeconds") or self.lease_s)
        return holder not in ("", self.identity) and now_s - self._seen_s < duration_s

    async def _take(self, lease: Manifest | None) -> Manifest | None:
        """Write ourselves into the lease; what it is then, or None if another one was first."""
        try:
            if lease is None:
                collection = paths.collection(API, "leases", self.namespace)
                return await self.api.create(collection, self._lease(transitions=0))
            spec = lease.get("spec") or {}
            taken = (spec.get("leaseTransitions") or 0) + (
                spec.get("holderIdentity") != self.identity
            )
            body = self._lease(transitions=taken)
            body["metadata"]["resourceVersion"] = lease["metadata"]["resourceVersion"]
            return await self.api.merge(self._path, body)
        except Conflict:
            return None

    async def _are_in_our_way(self) -> list[Rival]:
        """Other releases that hold a lease where we watch; says so."""
        found = [] if self.rivals is None else await self.rivals.holding(self.lease_s)
        if not found or self.rivals is None:
            return []
        living = [rival for rival in found if rival.is_alive]
        if living:  # of others nobody knows yet whether anybody is behind them
            first = living[0]
            why = (
                f"the lease {first.namespace}/{first.name} is held, another release's, which "
                f"watches {shown(first.watches)}; this one watches {shown(self.rivals.watches)}, "
                "and where both watch one leads. Uninstall one, or give them different namespaces"
            )
            if why != self.stands_by:
                logger.warning("standing by", extra={"why": why})
            self.stands_by = why
        return found

    async def _give_up(self, lease: Manifest) -> None:
        version = lease["metadata"]["resourceVersion"]
        body = {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": ""}}
        await self.api.merge(self._path, body)
        self._holds = False

    async def release(self) -> None:
        """Give the lease back, if it is ours, so that the next one need not wait for its end."""
        if not self._holds:
            return
        self._renewed_s, self._holds = float("-inf"), False
        try:
            lease = await self.api.get(self._path)
            if lease is not None and lease["spec"].get("holderIdentity") == self.identity:
                await self._give_up(lease)
        except KubeError as error:  # it runs out by itself
            logger.debug("lease not released", extra={"error": str(error)})

    @property
    def _path(self) -> str:
        return paths.item(API, "leases", self.namespace, self.name)

    def _lease(self, *, transitions: int) -> Manifest:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "apiVersion": API,
            "kind": "Lease",
            "metadata": {"name": self.name, **self._notes()},
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": max(1, int(self.lease_s)),
                "leaseTransitions": transitions,
                "renewTime": now,
            },
        }

    def _notes(self) -> Manifest:
        """By which other releases find the lease, and know what we watch."""
        if self.rivals is None:
            return {}
        return {"labels": {LABEL: "true"}, "annotations": {WATCHES: self.rivals.watches}}
