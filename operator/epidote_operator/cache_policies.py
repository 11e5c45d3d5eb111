"""This file is about CachePolicy reaching gateways: at once by HTTP, for good by a ConfigMap.

A policy is judged before it goes anywhere: gateways keep the one they have until the next good one.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from epidote_core.errors import EpidoteError
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.merge_patch import merge_patch
from epidote_operator.observe.gateway_client import GatewayClient
from epidote_operator.resources.revision import digest
from epidote_operator.spec.cache_policy import PLURAL, CachePolicyStatus, PolicyUserStatus
from epidote_operator.spec.invalid import InvalidSpec
from epidote_operator.spec.parsing import parse_cache_policy
from epidote_operator.spec.service_status import ConditionType
from epidote_operator.status.conditions import FALSE, TRUE, renewed, timestamp
from epidote_operator.status.persistence import dumped

logger = logging.getLogger(__name__)

Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A policy as it is now; `spec` is the last good one, {} before there was any."""

    spec: Mapping[str, Any]
    digest: str
    problem: str = ""


@dataclass
class CachePolicies:
    """Every policy that services name. `find` reads the cache of policies."""

    api: KubeApi
    find: Callable[[str, str], Manifest | None]
    _good: dict[Key, Mapping[str, Any]] = field(default_factory=dict)
    _users: dict[Key, dict[str, PolicyUserStatus]] = field(default_factory=dict)
    _written: dict[Key, Manifest] = field(default_factory=dict)

    def judge(self, namespace: str, name: str) -> Judged:
        """What gateways of a service that names this policy shall follow."""
        resource, problem = self.find(namespace, name), ""
        if resource is None:
            problem = f"there is no CachePolicy {name!r} in {namespace}"
        else:
            try:
                parse_cache_policy(resource.get("spec") or {})
                self._good[namespace, name] = resource.get("spec") or {}
            except InvalidSpec as error:
                problem = str(error)
        spec = self._good.get((namespace, name), {})
        return Judged(spec=spec, digest=digest(spec), problem=problem)

    async def push(
        self, judged: Judged, gateways: Mapping[str, GatewayClient], told: dict[str, str]
    ) -> int:
        """Tell gateways that do not know it yet; returns how many do. `told`: by address.

        A gateway that can't be reached is told at a later tick, or reads it when it starts.
        """
        for address in [address for address in told if address not in gateways]:
            del told[address]
        for address, gateway in gateways.items():
            if told.get(address) == judged.digest:
                continue
            try:
                await gateway.put("/admin/cache/policy", {"spec": dict(judged.spec)})
            except EpidoteError as error:
                logger.info("policy not taken", extra={"gateway": address, "error": str(error)})
            else:
                told[address] = judged.digest
        return sum(known == judged.digest for known in told.values())

    async def report(
        self, namespace: str, name: str, user: PolicyUserStatus, judged: Judged, now_s: float
    ) -> None:
        """Write the policy's status, if what this service says of it is news."""
        resource = self.find(namespace, name)
        if resource is None:
            return
        users = self._users.setdefault((namespace, name), {})
        users[user.name] = user
        latest = self._written.get((namespace, name), resource)
        if int(latest["metadata"]["resourceVersion"]) < int(
            resource["metadata"]["resourceVersion"]
        ):
            latest = resource
        before = CachePolicyStatus.model_validate(latest.get("status") or {})
        generation = resource["metadata"].get("generation")
        everywhere = all(known.applied == known.gateways for known in users.values())
        if judged.problem:
            finding = (FALSE, "InvalidSpec", judged.problem)
        elif not everywhere:
            finding = (FALSE, "Applying", "some gateways do not follow it yet")
        else:
            finding = (TRUE, "Applied", "every gateway that uses it follows it")
        known = {condition.type: condition for condition in before.conditions}
        ready = renewed(
            ConditionType.READY.value,
            finding,
            known.get(ConditionType.READY.value),
            now_s=now_s,
            generation=generation,
        )
        is_news = everywhere and before.observed_generation != generation
        status = CachePolicyStatus(
            observed_generation=generation,
            conditions=(ready,),
            services=tuple(users[service] for service in sorted(users)),
            num_categories=len(judged.spec.get("categories") or ()),
            applied_at=timestamp(now_s) if is_news else before.applied_at,
        )
        if patch := merge_patch(latest.get("status") or {}, dumped(status)):
            path = paths.item(paths.API_VERSION, PLURAL, namespace, name)
            written = await self.api.merge(f"{path}/status", {"status": patch})
            if written is not None:
                self._written[namespace, name] = written
