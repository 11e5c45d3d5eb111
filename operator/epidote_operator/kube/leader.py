"""This file is about leader election by a Lease: of several operators, one acts.

As in client-go: the holder renews; another takes over when the lease has not been renewed for its
duration, as seen by its own clock. Writes are conditional on the resource version, so two can't
both win. A leader that can't renew stops acting before others may begin.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.errors import Conflict, KubeError

logger = logging.getLogger(__name__)

API = "coordination.k8s.io/v1"
LEASE_S, RENEW_S = 15.0, 3.0
SAFETY_S = 5.0  # before the lease's end a leader that could not renew stops acting


@dataclass
class LeaderElection:
    """One candidate, `identity`, for the Lease `name`. `monotonic` is this process's clock."""

    api: KubeApi
    namespace: str
    name: str
    identity: str
    monotonic: Callable[[], float]
    lease_s: float = LEASE_S
    renew_s: float = RENEW_S
    safety_s: float = SAFETY_S
    turn: Callable[[], None] = lambda: None  # called each time the loop comes round
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
        """Renew, or take the lease if it is free or has run out."""
        started_s = self.monotonic()
        path = paths.item(API, "leases", self.namespace, self.name)
        lease = await self.api.get(path)
        if lease is None:
            body = self._lease(transitions=0)
            try:
                await self.api.create(paths.collection(API, "leases", self.namespace), body)
            except Conflict:
                return
            self._renewed_s = started_s
            return
        spec = lease.get("spec", {})
        holder, renewed = spec.get("holderIdentity") or "", spec.get("renewTime") or ""
        if (holder, renewed) != self._seen:
            self._seen, self._seen_s = (holder, renewed), started_s
        duration_s = float(spec.get("leaseDurationSeconds") or self.lease_s)
        if holder not in ("", self.identity) and started_s - self._seen_s < duration_s:
            return
        taken = spec.get("leaseTransitions", 0) + (holder != self.identity)
        body = self._lease(transitions=taken)
        body["metadata"]["resourceVersion"] = lease["metadata"]["resourceVersion"]
        try:
            await self.api.merge(path, body)
        except Conflict:  # another candidate was first
            return
        self._renewed_s = started_s

    async def release(self) -> None:
        """Give the lease back, if it is ours, so that the next one need not wait for its end."""
        if not self.is_leader:
            return
        self._renewed_s = float("-inf")
        path = paths.item(API, "leases", self.namespace, self.name)
        try:
            lease = await self.api.get(path)
            if lease is None or lease["spec"].get("holderIdentity") != self.identity:
                return
            version = lease["metadata"]["resourceVersion"]
            body = {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": ""}}
            await self.api.merge(path, body)
        except KubeError as error:  # it runs out by itself
            logger.debug("lease not released", extra={"error": str(error)})

    def _lease(self, *, transitions: int) -> Manifest:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "apiVersion": API,
            "kind": "Lease",
            "metadata": {"name": self.name},
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": max(1, int(self.lease_s)),
                "leaseTransitions": transitions,
                "renewTime": now,
            },
        }
