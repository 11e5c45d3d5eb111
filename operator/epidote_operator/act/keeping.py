"""This file is about keeping the objects around the workers as they should be, with few writes.

An object is applied when what we want of it has changed, and all of them every few minutes, for
what others changed or deleted. What a tick costs does not depend on how many objects there are.
A head or gateways of which no pod is there serve nobody: those are applied again at once.
"""

import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from epidote_operator.act.fleet_keys import FleetKeys, SpoiltSecret, ensure_keys
from epidote_operator.act.objects import apply_ours, delete_ours, path_of, policy_versions
from epidote_operator.act.ownership import NameTaken
from epidote_operator.act.refusals import Refusals, RefusedObject, is_invalid
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.errors import ApiRefused
from epidote_operator.resources.cache_config import cache_config_map
from epidote_operator.resources.fleet_objects import (
    revision_objects,
    shared_objects,
    unwanted_objects,
)
from epidote_operator.resources.fleet_values import Fleet
from epidote_operator.resources.head import gateway_service
from epidote_operator.resources.kuberay import with_scale_of
from epidote_operator.resources.labels import COMPONENT, REVISION, Component
from epidote_operator.resources.revision import digest

REAPPLY_S = 300.0  # objects that somebody changed or deleted come back within this
PODS_S = 10.0  # for the pods of what was applied to be seen
OF_PODS = ("Deployment", "RayCluster")
Pods = Callable[[Component], Collection[Mapping[str, Any]]]  # of one service, of all revisions


@dataclass
class KeptObjects:
    """What one operator process knows to have applied for one service."""

    keys: FleetKeys | None = None
    keys_trouble: NameTaken | SpoiltSecret | None = None  # with the Secret, when last looked at
    policy: Mapping[str, Any] | None = None  # of the cache: the last good one gateways were given
    has_recalled: bool = False  # an earlier operator's `policy`, if there was one
    _wanted: tuple[object, ...] = ()  # what the last manifests were made from; (): look again
    _applied: dict[str, str] = field(default_factory=dict)  # digests by path
    _uids: dict[str, str] = field(default_factory=dict)  # of objects known to be ours, by path
    _gone: set[str] = field(default_factory=set)  # paths of what is unwanted, and not there
    _due_s: float = float("-inf")  # when everything is applied again
    _pods_due_s: dict[str, float] = field(default_factory=dict)  # by component: seen or asked for
    _versions: tuple[str, ...] | None = None
    _refusals: Refusals = field(default_factory=Refusals)

    @property
    def admin_key(self) -> str | None:
        return None if self.keys is None else self.keys.admin_key

    def is_due(self, now_s: float) -> bool:
        """Whether it is time to look after everything, whatever is known of it."""
        return now_s >= self._due_s

    async def ensure_keys(self, api: KubeApi, fleet: Fleet, *, serving: str, now_s: float) -> str:
        """Have `keys`, and know what is wrong with their Secret; returns what to tell, if anything.

        Looks when everything is looked after, and as long as something is wrong. `fleet`: of the
        first keys' revision; `serving`: the one that serves, "" if none does. See `fleet_keys`.
        """
        if self.keys is not None and self.keys_trouble is None and not self.is_due(now_s):
            return ""
        try:
            found = await ensure_keys(
                api,
                fleet,
                self.keys,
                has_fleet=bool(serving),
                has_first_keys=serving == fleet.revision,
            )
        except (NameTaken, SpoiltSecret) as error:
            self.keys_trouble = error
            return ""
        self.keys, self.keys_trouble = found.keys, None
        return found.event

    async def ensure(
        self,
        api: KubeApi,
        fleet: Fleet,
        *,
        desired_workers: int,
        shifts: bool,
        policy: Mapping[str, Any] | None,
        pods: Pods,
        now_s: float,
    ) -> tuple[NameTaken | RefusedObject, ...]:
        """Apply what is not known to be there. `policy`: of the response cache, if one is named.

        `shifts`: the Service leads to this revision; else the rollout does that, later. Returned is
        what could not be written because others hold its name, or the API server won't have it; the
        next calls look again.

        Raises:
            KubeError: what was applied before it stays known; the next call goes on from there.
        """
        wanted = (
            fleet.spec,
            fleet.revision,
            desired_workers,
            shifts,
            fleet.head_changes,
            None if policy is None else digest(dict(policy)),
        )
        is_due, bare = self.is_due(now_s), self._bare(fleet, pods, now_s)
        if wanted == self._wanted and not is_due and not bare:
            return ()
        if is_due:
            self._applied.clear()
            self._gone.clear()
            self._versions = None
        if self._versions is None:
            self._versions = await policy_versions(api)
        objects = [] if policy is None else [cache_config_map(fleet, policy)]
        objects += shared_objects(
            fleet, desired_workers=desired_workers, api_versions=self._versions
        )
        objects += revision_objects(fleet)
        if shifts:
            objects.append(gateway_service(fleet))
        troubles: list[NameTaken | RefusedObject] = []
        for manifest in objects:
            component = (manifest["metadata"].get("labels") or {}).get(COMPONENT)
            if manifest["kind"] in OF_PODS and component in bare:
                self._applied.pop(path_of(manifest), None)
            try:
                await self._apply(api, manifest, now_s)
            except (NameTaken, RefusedObject) as error:  # the rest of the fleet goes on
                troubles.append(error)
        for manifest in unwanted_objects(fleet, shifts=shifts):
            if (path := path_of(manifest)) in self._gone:
                continue
            self._uids.pop(path, None)
            self._applied.pop(path, None)
            await delete_ours(api, manifest)
            self._gone.add(path)
        self._wanted = () if troubles else wanted
        if is_due:
            self._due_s = now_s + _spread_s(fleet.uid)
        return tuple(troubles)

    def _bare(self, fleet: Fleet, pods: Pods, now_s: float) -> set[str]:
        """Parts of this revision without a pod that stays: who makes them may be gone."""
        found = set()
        for component in (Component.HEAD, Component.GATEWAY):
            due_s = self._pods_due_s.setdefault(component, now_s + PODS_S)
            if any(_stays(pod, fleet.revision) for pod in pods(component)):
                self._pods_due_s[component] = now_s
            elif now_s >= due_s:
                self._pods_due_s[component] = now_s + PODS_S
                found.add(component.value)
        return found

    async def _apply(self, api: KubeApi, manifest: Manifest, now_s: float) -> None:
        path, known = path_of(manifest), digest(manifest)
        if self._applied.get(path) == known:
            return
        self._refusals.demand_due(path, manifest, now_s)
        if manifest["kind"] == "RayCluster":  # how many and whom not is the hands' to say
            manifest = with_scale_of(manifest, await api.get(path))
        uid = self._uids.pop(path, "")
        try:
            self._uids[path] = await apply_ours(api, manifest, uid)
        except ApiRefused as refused:
            if not is_invalid(refused):
                raise
            raise self._refusals.note(path, manifest, refused, now_s) from refused
        self._refusals.forget(path)
        self._gone.discard(path)
        self._applied[path] = known


def _stays(pod: Mapping[str, Any], revision: str) -> bool:
    metadata = pod["metadata"]
    is_of_it = (metadata.get("labels") or {}).get(REVISION) == revision
    return is_of_it and "deletionTimestamp" not in metadata


def _spread_s(uid: str) -> float:
    """Services that began together are not applied together for ever."""
    return REAPPLY_S * (0.5 + zlib.crc32(uid.encode()) % 1000 / 2000)
