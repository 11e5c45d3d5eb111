"""This file is about how a run stands, put together from what its processes tell."""

import time
from collections import deque

from epidote_loadgen.arrivals.closed_loop import ClosedLoop
from epidote_loadgen.plan import RunPlan
from epidote_loadgen.records import Progress, RequestRecord
from epidote_loadgen.runner.part import GLANCE_S, Glance

WINDOW_S = 2.0  # of the rates; some glances long, so that they are steady


class ProgressMeter:
    """Feed it glances; ask it for progress."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        closed = isinstance(plan.arrivals, ClosedLoop)
        self._slots = None if isinstance(plan.arrivals, ClosedLoop) else plan.arrivals.slots()
        self._next_due_s = float("inf") if closed else 0.0
        self._start_s = self._told_s = 0.0
        self._last: dict[int, Glance] = {}  # by part
        self._recent: list[RequestRecord] = []
        self._num_due = self._num_finished = 0
        self._history: deque[tuple[float, int, int, int]] = deque()  # time, due, sent, finished

    def start(self, start_s: float) -> None:
        """`start_s` on `time.monotonic`."""
        self._start_s = self._told_s = start_s

    def add(self, glance: Glance) -> None:
        self._last[glance.part] = glance
        self._recent.extend(glance.records)
        self._num_finished += len(glance.records)

    def progress(self) -> Progress | None:
        """How things stand; None: told so a moment ago."""
        now_s = time.monotonic()
        if now_s < self._told_s + GLANCE_S:
            return None
        self._told_s = now_s
        at_s = now_s - self._start_s
        glances = self._last.values()
        num_sent = sum(glance.num_sent for glance in glances)
        self._history.append((at_s, self._due_until(at_s), num_sent, self._num_finished))
        while len(self._history) > 2 and self._history[1][0] < at_s - WINDOW_S:
            self._history.popleft()
        then_s, due, sent, finished = self._history[0]
        span_s = max(1e-9, at_s - then_s) if then_s < at_s else max(1e-9, at_s)
        if then_s >= at_s:
            due = sent = finished = 0
        recent, self._recent = tuple(self._recent), []
        return Progress(
            at_s=at_s,
            planned_duration_s=self._plan.duration_s,
            asked_rps=(self._num_due - due) / span_s,
            sent_rps=(num_sent - sent) / span_s,
            finished_rps=(self._num_finished - finished) / span_s,
            num_sent=num_sent,
            num_in_flight=sum(glance.num_in_flight for glance in glances),
            num_waiting=sum(glance.num_waiting for glance in glances),
            recent=recent,
            cpu_utilization=max((g.cpu_utilization for g in glances), default=0.0),
            loop_lag_s=max((g.loop_lag_s for g in glances), default=0.0),
        )

    def _due_until(self, at_s: float) -> int:
        """How many requests the plan wanted sent by now."""
        if self._slots is None:
            self._num_due = sum(glance.num_sent for glance in self._last.values())
            return self._num_due
        while self._next_due_s <= at_s:
            slot = next(self._slots, None)
            if slot is None or slot.intended_send_s is None:
                self._next_due_s = float("inf")
                break
            self._next_due_s = slot.intended_send_s
            self._num_due += 1
        return self._num_due
