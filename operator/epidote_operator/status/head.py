"""This file is about Ray's head as another one: what is known of it from tick to tick. Pure.

Ray keeps its cluster's state in the head's memory. A head that restarted knows nobody; workers and
gateways of the one before serve on for up to a minute, and then end. What tells two heads apart is
the life of the head's container: its pod's uid, and how often it was restarted there.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from epidote_operator.resources.labels import Component
from epidote_operator.spec.service_status import HeadStatus

BACK_OFF = "CrashLoopBackOff"
MANY_RESTARTS = 2  # a first one may be an overloaded node's probe
MOST_CHARACTERS = 300


def head_life(pods: Collection[Mapping[str, Any]]) -> str | None:
    """The life of the one head that listens, of the pods of one revision's head.

    None: there is none now, or two for a moment; nothing is known then, and nobody is lost.
    """
    able = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"] and _listens(pod)]
    if len(able) != 1:
        return None
    (pod,) = able
    restarts = sum(
        int(status.get("restartCount", 0))
        for status in pod["status"].get("containerStatuses") or ()
        if status.get("name") == Component.HEAD.value
    )
    return f"{pod['metadata']['uid']}.{restarts}"


def head_trouble(pods: Collection[Mapping[str, Any]]) -> str:
    """Why the head does not come up, of the pods of one revision's head.

    "": one listens, or none has ended often enough to say that it doesn't.
    """
    able = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    if any(_listens(pod) for pod in able):
        return ""
    for pod in able:
        for status in pod.get("status", {}).get("containerStatuses") or ():
            if status.get("name") != Component.HEAD.value:
                continue
            waiting = ((status.get("state") or {}).get("waiting") or {}).get("reason", "")
            if waiting != BACK_OFF and int(status.get("restartCount", 0)) < MANY_RESTARTS:
                continue
            ended = (status.get("lastState") or {}).get("terminated") or {}
            message = str(ended.get("message", "")).strip()[-MOST_CHARACTERS:]
            told = message or f"{ended.get('reason', 'it ended')}, code {ended.get('exitCode')}"
            return f"the head {pod['metadata']['name']} ends whenever it starts: {told}"
    return ""


def _listens(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


@dataclass(frozen=True, kw_only=True)
class HeadLook:
    """The head at one look. `life`: of the one that listens, None if none is known to.

    `trouble`: why none does; "" if nothing is known of that.
    """

    before: HeadStatus | None
    now: HeadStatus | None
    life: str | None
    trouble: str = ""

    @property
    def changes(self) -> int:
        return 0 if self.now is None else self.now.changes

    @property
    def former(self) -> str | None:
        """The life of the one whose place another one has taken since the last look."""
        return self._earlier if self.before and self.changes != self.before.changes else None

    @property
    def is_first(self) -> bool:
        """Whether another one took the place of one that nobody had joined."""
        return self._earlier is not None and self.former is None

    @property
    def _earlier(self) -> str | None:
        before, now = self.before, self.now
        if before is None or now is None or before.revision != now.revision:
            return None
        return before.life if before.life != now.life else None


def followed(
    before: HeadStatus | None,
    revision: str,
    life: str | None,
    *,
    joined: Collection[str],
    trouble: str = "",
) -> HeadLook:
    """The look at the head of the revision that serves; `life` as it is now.

    Another revision has a head of its own: its first one replaced nobody. Nor did one whose
    predecessor is not in `joined`, the lives of heads that workers have joined.
    """
    now = before if before is not None and before.revision == revision else None
    if life is not None and (now is None or now.life != life):
        changes = 0 if now is None else now.changes + (now.life in joined)
        now = HeadStatus(revision=revision, life=life, changes=changes)
    return HeadLook(before=before, now=now, life=life, trouble=trouble)
