"""This file is about looking at a MultimodalService: what its operator saw, decided and why."""

from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from epidote_core.roles import WorkerState
from epidote_loadgen.watch.kube_login import find_login
from epidote_loadgen.watch.look import Decision, Look, LookFailed

RESOURCE = "/apis/serving.epidote.dev/v1alpha1/namespaces/{namespace}/multimodalservices/{name}"
LOOK_S = 5.0


class KubernetesService:
    """The resource's status. Raises NoLogin where no login can be found."""

    def __init__(
        self, name: str, *, namespace: str, kubeconfig: Path | None = None, context: str = ""
    ) -> None:
        login = find_login(kubeconfig, context)
        self._name = f"{namespace}/{name}"
        self._url = login.server + RESOURCE.format(namespace=namespace, name=name)
        self._client = httpx.AsyncClient(
            verify=login.tls if login.tls is not None else True,
            trust_env=False,
            timeout=LOOK_S,
            headers=login.headers,
        )

    @property
    def name(self) -> str:
        return f"MultimodalService {self._name}"

    async def look(self) -> Look:
        try:
            answer = await self._client.get(self._url)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise LookFailed(f"{self.name}: {error or type(error).__name__}") from error
        if answer.status_code != 200:
            raise LookFailed(f"{self.name}: HTTP {answer.status_code}")
        try:
            return look_of_status(answer.json().get("status") or {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LookFailed(f"{self.name}: not a status we know: {error!r}") from error

    async def close(self) -> None:
        await self._client.aclose()


def look_of_status(status: dict[str, Any]) -> Look:
    """The status as a look. Workers that serve no role yet show as `all`, starting."""
    workers: dict[str, dict[str, int]] = {}
    desired: dict[str, int] = {}
    known = 0
    for role in status.get("roles") or []:
        states = {
            WorkerState.ROUTABLE.value: int(role.get("ready") or 0),
            WorkerState.SWITCHING.value: int(role.get("switching") or 0),
        }
        known += sum(states.values())
        workers[role["name"]] = {state: count for state, count in states.items() if count}
        desired[role["name"]] = int(role.get("desired") or 0)
    missing = int(status.get("workers") or 0) - known
    if missing > 0:
        states = workers.setdefault("all", {})
        states[WorkerState.STARTING.value] = missing
    return Look(
        workers={role: states for role, states in workers.items() if states},
        desired=desired,
        decisions=tuple(_decision(entry) for entry in status.get("decisions") or []),
    )


def _decision(entry: dict[str, Any]) -> Decision:
    return Decision(
        at_unix_s=datetime.fromisoformat(str(entry["at"]).replace("Z", "+00:00")).timestamp(),
        reason=str(entry["reason"]),
        text=str(entry.get("text") or ""),
        binding=str(entry.get("binding") or ""),
        counterfactual=str(entry.get("counterfactual") or ""),
        targets={str(lane): int(count) for lane, count in (entry.get("targets") or {}).items()},
        actions=tuple(str(action) for action in entry.get("actions") or ()),
        carried_out=bool(entry.get("carriedOut", True)),
    )
