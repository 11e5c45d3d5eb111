"""This file is about the history of a fleet, put together from looks: samples and events."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from epidote_core.roles import WorkerState
from epidote_loadgen.watch.look import Decision, Look

MOST_PROBLEMS = 50
STARTING = WorkerState.STARTING.value


class History:
    """Feed it looks in order of time; it keeps samples and notices what changed between them.

    Events are of kind `switch`, `scale`, `cold-start` and `decision`. Pure but for its memory.
    """

    def __init__(self) -> None:
        self.samples: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.problems: list[dict[str, Any]] = []
        self.num_problems = 0
        self._switches: dict[str, Mapping[tuple[str, str, str], float]] = {}  # by source
        self._counted: dict[str, Mapping[str, float]] = {}  # by source: decisions by reason
        self._decided: set[tuple[float, str, str]] = set()
        self._sizes: dict[str, dict[str, int]] = {}  # by source: workers by role
        self._starting: deque[float] = deque()  # when each of those that start was first seen

    def add(self, source: str, look: Look, *, at_s: float, unix_at_zero_s: float) -> None:
        """One look; `unix_at_zero_s` is the wall time of the run's start."""
        if look.workers or look.waiting or look.running or look.desired:
            self.samples.append(
                {
                    "at_s": round(at_s, 3),
                    "source": source,
                    "workers": {role: dict(states) for role, states in look.workers.items()},
                    "waiting": dict(look.waiting),
                    "running": dict(look.running),
                    "desired": dict(look.desired),
                }
            )
        if look.workers:
            self._notice_sizes(source, look, at_s)
        self._notice_switches(source, look, at_s)
        self._notice_counts(source, look, at_s)
        for decision in look.decisions:
            self._notice_decision(decision, unix_at_zero_s)

    def fail(self, source: str, message: str, *, at_s: float) -> None:
        """A look that failed; the first ones are kept."""
        self.num_problems += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append({"at_s": round(at_s, 3), "source": source, "text": message})

    def to_json(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "events": sorted(self.events, key=lambda event: event["at_s"]),
            "problems": self.problems,
            "num_problems": self.num_problems,
        }

    def _event(self, at_s: float, kind: str, text: str, **more: Any) -> None:
        self.events.append({"at_s": round(at_s, 3), "kind": kind, "text": text, **more})

    def _notice_sizes(self, source: str, look: Look, at_s: float) -> None:
        sizes = {
            role: sum(n for state, n in states.items() if state != WorkerState.FAILED.value)
            for role, states in look.workers.items()
        }
        before = self._sizes.get(source)
        self._sizes[source] = sizes
        if len(self._sizes) > 1 and source != next(iter(self._sizes)):
            return  # a second source tells of the same workers
        starting = sum(states.get(STARTING, 0) for states in look.workers.values())
        self._starting.extend([at_s] * (starting - len(self._starting)))
        while len(self._starting) > starting:
            took_s = at_s - self._starting.popleft()
            if before is not None:
                self._event(
                    at_s, "cold-start", f"a worker was up after {took_s:.1f} s", took_s=took_s
                )
        if before is None:
            return
        change = sum(sizes.values()) - sum(before.values())
        if change:
            told = f"{sum(before.values())} → {sum(sizes.values())} workers"
            self._event(at_s, "scale", told, change=change)

    def _notice_switches(self, source: str, look: Look, at_s: float) -> None:
        before = self._switches.get(source)
        # A counter has no series before it counts: an empty look is a baseline too.
        self._switches[source] = look.switches
        if before is None:
            return
        for key, total in look.switches.items():
            more = round(total - before.get(key, 0.0))
            from_role, to_role, outcome = key
            if more > 0:
                told = f"{from_role} → {to_role}" + (f" ×{more}" if more > 1 else "")
                if outcome not in ("", "ok"):
                    told += f" ({outcome.replace('_', ' ')})"
                self._event(at_s, "switch", told, from_role=from_role, to_role=to_role, count=more)

    def _notice_counts(self, source: str, look: Look, at_s: float) -> None:
        """Decisions that only a counter tells of; a resource that says why is worth more."""
        before = self._counted.get(source)
        self._counted[source] = look.decided
        if before is None or self._decided:
            return
        for reason, total in look.decided.items():
            if total > before.get(reason, 0.0):
                self._event(at_s, "decision", reason, reason=reason)

    def _notice_decision(self, decision: Decision, unix_at_zero_s: float) -> None:
        key = (decision.at_unix_s, decision.reason, decision.text)
        at_s = decision.at_unix_s - unix_at_zero_s
        if key in self._decided or at_s < -1.0:  # statuses have whole seconds
            return
        self._decided.add(key)
        self._event(
            max(0.0, at_s),
            "decision",
            decision.text or decision.reason,
            reason=decision.reason,
            binding=decision.binding,
            counterfactual=decision.counterfactual,
            targets=dict(decision.targets),
            actions=list(decision.actions),
            carried_out=decision.carried_out,
        )
