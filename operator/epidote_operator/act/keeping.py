"""This file is about keeping the objects around the workers as they should be, with few writes.

An object is applied when what we want of it has changed, and all of them every few minutes, for
what others changed or deleted. What a tick costs does not depend on how many objects there are.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from epidote_operator.act.objects import apply_all, ensure_secret, path_of, policy_versions
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.resources.cache_config import cache_config_map
from epidote_operator.resources.fleet_objects import revision_objects, shared_objects
from epidote_operator.resources.fleet_values import Fleet
from epidote_operator.resources.head import gateway_service
from epidote_operator.resources.kuberay import with_scale_of
from epidote_operator.resources.revision import digest

REAPPLY_S = 300.0  # objects that somebody changed or deleted come back within this


@dataclass
class KeptObjects:
    """What one operator process knows to have applied for one service."""

    admin_key: str | None = None
    _wanted: tuple[object, ...] = ()  # what the last manifests were made from
    _applied: dict[str, str] = field(default_factory=dict)  # digests by path
    _due_s: float = float("-inf")  # when everything is applied again
    _versions: tuple[str, ...] | None = None

    async def ensure(
        self,
        api: KubeApi,
        fleet: Fleet,
        *,
        desired_workers: int,
        shifts: bool,
        policy: Mapping[str, Any] | None,
        now_s: float,
    ) -> None:
        """Apply what is not known to be there. `policy`: of the response cache, if one is named.

        `shifts`: the Service leads to this revision; else the rollout does that, later.

        Raises:
            KubeError: what was applied before it stays known; the next call goes on from there.
        """
        wanted = (
            fleet.spec,
            fleet.revision,
            desired_workers,
            shifts,
            None if policy is None else digest(dict(policy)),
        )
        is_due = now_s >= self._due_s
        if wanted == self._wanted and not is_due:
            return
        if is_due:
            self._applied.clear()
            self._versions = None
        if self.admin_key is None or is_due:
            self.admin_key = await ensure_secret(api, fleet)
        if self._versions is None:
            self._versions = await policy_versions(api)
        objects = [] if policy is None else [cache_config_map(fleet, policy)]
        objects += shared_objects(
            fleet, desired_workers=desired_workers, api_versions=self._versions
        )
        objects += revision_objects(fleet)
        if shifts:
            objects.append(gateway_service(fleet))
        for manifest in objects:
            await self._apply(api, manifest)
        self._wanted = wanted
        if is_due:
            self._due_s = now_s + _spread_s(fleet.uid)

    async def _apply(self, api: KubeApi, manifest: Manifest) -> None:
        path, known = path_of(manifest), digest(manifest)
        if self._applied.get(path) == known:
            return
        if manifest["kind"] == "RayCluster":  # how many and whom not is the hands' to say
            manifest = with_scale_of(manifest, await api.get(path))
        await apply_all(api, [manifest])
        self._applied[path] = known


def _spread_s(uid: str) -> float:
    """Services that began together are not applied together for ever."""
    return REAPPLY_S * (0.5 + zlib.crc32(uid.encode()) % 1000 / 2000)
