"""This file is about CachePolicy reaching gateways: at once by HTTP, for good by a ConfigMap.

A policy is judged before it goes anywhere: gateways keep the one they have until the next good one.
What that was survives the operator in each service's ConfigMap. Where no good one was ever known,
gateways that run keep what they have, and new ones start with the cache off: a policy that somebody
mistyped or deleted must never make the cache keep what it was told not to.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from epidote_core.errors import EpidoteError
from epidote_operator.act.keeping import KeptObjects
from epidote_operator.act.ownership import is_ours
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.merge_patch import merge_patch
from epidote_operator.observe.gateway_client import GatewayClient
from epidote_operator.resources.cache_config import FILE, cache_config_map, config_map_name
from epidote_operator.resources.fleet_values import Fleet
from epidote_operator.resources.revision import digest
from epidote_operator.spec.cache_policy import PLURAL, CachePolicyStatus, PolicyUserStatus
from epidote_operator.spec.invalid import InvalidSpec
from epidote_operator.spec.parsing import parse_cache_policy
from epidote_operator.spec.service_status import ConditionType
from epidote_operator.status.conditions import (
    FALSE,
    TRUE,
    UNKNOWN,
    Finding,
    renewed,
    timestamp,
)
from epidote_operator.status.persistence import dumped

logger = logging.getLogger(__name__)

Key = tuple[str, str]
OFF: Mapping[str, Any] = {"enabled": False}  # every request goes to the fleet


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What gateways shall follow: a policy as it is now, or else the last good one.

    `is_known`: there was a good one; else `spec` is `OFF`, for new gateways only. `problem`: what
    is wrong with the policy as it is now, "" if nothing is.
    """

    spec: Mapping[str, Any]
    is_known: bool
    problem: str = ""
    is_missing: bool = False  # the problem: there is no such policy

    @property
    def digest(self) -> str:
        return digest(dict(self.spec))


@dataclass
class CachePolicies:
    """Every policy that services name. `find` reads the cache of policies."""

    api: KubeApi
    find: Callable[[str, str], Manifest | None]
    may_act: Callable[[], bool] = lambda: True  # asked before a gateway is told
    _good: dict[Key, Mapping[str, Any]] = field(default_factory=dict)
    _users: dict[Key, dict[str, PolicyUserStatus]] = field(default_factory=dict)
    _written: dict[Key, Manifest] = field(default_factory=dict)

    def judge(self, namespace: str, name: str, recalled: Mapping[str, Any] | None = None) -> Judged:
        """What gateways of a service that names this policy shall follow.

        `recalled`: what they follow already, as `recall` found it.
        """
        resource, problem = self.find(namespace, name), ""
        if resource is None:
            problem = f"there is no CachePolicy {name!r} in {namespace}"
        else:
            try:
                parse_cache_policy(resource.get("spec") or {})
                self._good[namespace, name] = resource.get("spec") or {}
            except InvalidSpec as error:
                problem = str(error)
        spec = self._good.get((namespace, name), recalled)
        return Judged(
            spec=OFF if spec is None else spec,
            is_known=spec is not None,
            problem=problem,
            is_missing=resource is None,
        )

    async def of_service(self, fleet: Fleet, kept: KeptObjects) -> Judged | None:
        """What a service's gateways shall follow; None: it names no policy. Keeps it in `kept`."""
        name = fleet.spec.cache.policy_name
        if name is None:
            return None
        judged = self.judge(fleet.namespace, name, kept.policy)
        if not judged.is_known and not kept.has_recalled:
            kept.policy, kept.has_recalled = await self.recall(fleet), True
            judged = self.judge(fleet.namespace, name, kept.policy)
        if judged.is_known:
            kept.policy = judged.spec
        return judged

    async def spread(
        self,
        fleet: Fleet,
        judged: Judged | None,
        gateways: Mapping[str, GatewayClient],
        told: dict[str, str],
        now_s: float,
    ) -> Finding | None:
        """Tell gateways, and the policy's status; returns what the service's is to say of it."""
        name = fleet.spec.cache.policy_name
        if judged is None or name is None:
            return None
        applied = await self.push(judged, gateways, told)
        user = PolicyUserStatus(name=fleet.name, gateways=len(gateways), applied=applied)
        await self.report(fleet.namespace, name, user, judged, now_s)
        return policy_finding(judged, user)

    async def recall(self, fleet: Fleet) -> Mapping[str, Any] | None:
        """What this service's gateways were given by an operator before; None: nothing good."""
        name = config_map_name(fleet)
        found = await self.api.get(paths.item("v1", "configmaps", fleet.namespace, name))
        if found is None or not is_ours(found, cache_config_map(fleet, OFF)):
            return None
        try:
            spec = json.loads((found.get("data") or {})[FILE])
            parse_cache_policy(spec)
        except (KeyError, ValueError, TypeError):
            logger.warning("kept policy is unreadable", extra={"config_map": name})
            return None
        return None if spec == OFF else dict(spec)

    async def push(
        self, judged: Judged, gateways: Mapping[str, GatewayClient], told: dict[str, str]
    ) -> int:
        """Tell gateways that do not know it yet; returns how many do. `told`: by address.

        A gateway that can't be reached is told at a later tick, or reads it when it starts.
        """
        for address in [address for address in told if address not in gateways]:
            del told[address]
        if not judged.is_known:
            return 0
        for address, gateway in gateways.items():
            if told.get(address) == judged.digest or not self.may_act():
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
        users = self._known_users(resource)
        users[user.name] = user
        await self._write(resource, users, judged, now_s)

    async def tidy(
        self, policies: Iterable[tuple[Key, Manifest]], services: Iterable[Manifest], now_s: float
    ) -> None:
        """Forget services that name a policy no more, in its status as well. Policies that no
        service has told of yet are judged here: their owners hear of mistakes all the same.

        Raises:
            KubeError: the next call tries again.
        """
        named: dict[Key, set[str]] = defaultdict(set)
        for service in services:
            metadata = service["metadata"]
            for policy in _policies_of(service):
                named[metadata["namespace"], policy].add(metadata["name"])
        for key, resource in list(policies):
            users = self._known_users(resource)
            gone = users.keys() - named[key]
            for name in gone:
                del users[name]
            if (gone or not users) and "deletionTimestamp" not in resource["metadata"]:
                await self._write(resource, users, self.judge(*key), now_s)

    def _known_users(self, resource: Manifest) -> dict[str, PolicyUserStatus]:
        """By name; at first those that the status has, which an earlier operator wrote."""
        metadata = resource["metadata"]
        key = metadata["namespace"], metadata["name"]
        if key not in self._users:
            before = CachePolicyStatus.model_validate(resource.get("status") or {})
            self._users[key] = {user.name: user for user in before.services}
        return self._users[key]

    async def _write(
        self,
        resource: Manifest,
        users: Mapping[str, PolicyUserStatus],
        judged: Judged,
        now_s: float,
    ) -> None:
        """The policy's status, if it differs from the one that is there."""
        namespace, name = resource["metadata"]["namespace"], resource["metadata"]["name"]
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
        elif not users:
            finding = (TRUE, "Unused", "it is valid; no service's gateways follow it yet")
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


def policy_finding(judged: Judged, user: PolicyUserStatus) -> Finding:
    """What a service's status says of the policy that it names."""
    if judged.problem:
        reason = "PolicyNotFound" if judged.is_missing else "InvalidPolicy"
        stays = (
            "the last good policy stays in force"
            if judged.is_known
            else "no good one is known: gateways keep what they have, new ones start with it off"
        )
        return FALSE, reason, f"{judged.problem}; {stays}"
    if user.applied < user.gateways:
        return FALSE, "Applying", f"{user.applied} of {user.gateways} gateways follow it"
    if not user.gateways:
        return UNKNOWN, "NoGateway", "there is no gateway yet"
    return TRUE, "Applied", "every gateway follows it"


def _policies_of(service: Mapping[str, Any]) -> set[str]:
    """Policies that a service names, in its spec or in the good one that its fleet follows."""
    specs = service.get("spec"), (service.get("status") or {}).get("lastGoodSpec")
    caches = [spec.get("cache") for spec in specs if isinstance(spec, Mapping)]
    names = [cache.get("policyName") for cache in caches if isinstance(cache, Mapping)]
    return {name for name in names if isinstance(name, str)}
