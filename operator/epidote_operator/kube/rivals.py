"""This file is about operators of other releases: where what they watch overlaps, one leads.

Every release has a Lease of its own, which carries a label and says what its operator watches. To
lead, an operator takes its Lease and then looks at the others: of two that take theirs at once, at
least one sees the other. So nobody leads beside a Lease that is held, and who leads need not look.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.errors import ApiRefused

logger = logging.getLogger(__name__)

API = "coordination.k8s.io/v1"
LABEL = "epidote.dev/operator-lease"
WATCHES = "epidote.dev/watches"  # annotation: namespaces, by commas
EVERYWHERE = "*"


def told(namespaces: Iterable[str]) -> str:
    """What an operator watches, as its Lease says; none: every namespace.

    >>> told(["b", "a"]), told([])
    ('a,b', '*')
    """
    return ",".join(sorted(set(namespaces))) or EVERYWHERE


def overlap(ours: str, theirs: str) -> bool:
    """Whether there can be a namespace that both watch. Who does not say watches everything.

    >>> overlap("a,b", "b,c"), overlap("a", "b"), overlap("a", "*"), overlap("a", "")
    (True, False, True, True)
    """
    if EVERYWHERE in (ours, theirs) or not theirs:
        return True
    return bool(set(ours.split(",")) & set(theirs.split(",")))


@dataclass(frozen=True, kw_only=True)
class Rival:
    """Another release's Lease that is held. `is_alive`: it was renewed while we looked; until
    then its holder may be dead."""

    namespace: str
    name: str
    watches: str
    created: str
    is_alive: bool = False

    @property
    def rank(self) -> tuple[str, str, str]:
        """Of two that hold, the lesser one goes on: the older Lease, then by its name."""
        return self.created, self.namespace, self.name


@dataclass
class Rivals:
    """Looks at other releases' Leases. `namespaces`: what we watch, none: all; `own`: namespace
    and name of our release's Lease. `monotonic` is this process's clock."""

    api: KubeApi
    namespaces: tuple[str, ...]
    own: tuple[str, str]
    monotonic: Callable[[], float]
    _seen: dict[tuple[str, str], tuple[tuple[str, str], float, bool]] = field(default_factory=dict)
    _is_blind: bool = False

    @property
    def watches(self) -> str:
        return told(self.namespaces)

    async def holding(self, lease_s: float) -> list[Rival]:
        """Those that hold a Lease that has not run out, and watch what we watch; eldest first.

        A Lease runs out as in `leader`: not renewed for its duration (`lease_s` if it names none),
        by our own clock since we saw it first.

        Raises:
            KubeError
        """
        found, seen = [], {}
        for lease in await self._listed():
            where = (lease["metadata"]["namespace"], lease["metadata"]["name"])
            spec = lease.get("spec") or {}
            now = (spec.get("holderIdentity") or "", spec.get("renewTime") or "")
            before, since_s, is_alive = self._seen.get(where, (now, self.monotonic(), False))
            if before != now:
                since_s, is_alive = self.monotonic(), True
            seen[where] = (now, since_s, is_alive)
            rival = _rival(lease, is_alive=is_alive)
            ends_s = since_s + float(spec.get("leaseDurationSeconds") or lease_s)
            if not now[0] or where == self.own or not overlap(self.watches, rival.watches):
                continue
            if self.monotonic() < ends_s:
                found.append(rival)
        self._seen = seen
        return sorted(found, key=lambda rival: rival.rank)

    def rank(self, lease: Mapping[str, Any]) -> tuple[str, str, str]:
        """Our own, by our Lease."""
        return _rival(lease, is_alive=True).rank

    async def _listed(self) -> list[Manifest]:
        """Every operator's Lease; only those where we watch, if we may list no others."""
        try:
            return await self._list(None)
        except ApiRefused as error:
            if error.status != 403:
                raise
            if not self._is_blind:
                why = "releases elsewhere that watch the same namespaces can't be seen"
                logger.warning(why, extra={"error": str(error)})
            self._is_blind = True
        found: list[Manifest] = []
        for namespace in sorted({self.own[0], *self.namespaces}):
            try:
                found += await self._list(namespace)
            except ApiRefused as error:
                if error.status != 403:
                    raise
        return found

    async def _list(self, namespace: str | None) -> list[Manifest]:
        path = paths.collection(API, "leases", namespace)
        listed = await self.api.request("GET", path, params={"labelSelector": LABEL})
        return list(listed.get("items") or ())


def _rival(lease: Mapping[str, Any], *, is_alive: bool) -> Rival:
    metadata = lease["metadata"]
    return Rival(
        namespace=metadata["namespace"],
        name=metadata["name"],
        watches=(metadata.get("annotations") or {}).get(WATCHES, ""),
        created=metadata.get("creationTimestamp", ""),
        is_alive=is_alive,
    )


def shown(watches: str) -> str:
    """For people.

    >>> shown("a,b"), shown("*")
    ('a, b', 'every namespace')
    """
    return "every namespace" if watches in ("", EVERYWHERE) else watches.replace(",", ", ")
