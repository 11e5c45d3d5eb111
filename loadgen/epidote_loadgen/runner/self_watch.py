"""This file is about the client watching itself: was it able to do what was asked?"""

import asyncio
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from epidote_loadgen.measures.histogram import Histogram
from epidote_loadgen.plan import Limits
from epidote_loadgen.records import RequestRecord, SelfWatch

BEAT_S = 0.02
BUSY_UTILIZATION = 0.95  # of a core, with lateness: no room left
CROWDED_RATIO = 0.1  # of the time waited for a processor, with lateness: others had them
MAX_SOCKET_ERROR_RATIO = 0.001
SCHEDSTAT = Path("/proc/self/schedstat")  # of the main thread, which runs the loop


class LagMeter:
    """How late an event loop runs what it was told to run: sampled every `BEAT_S`."""

    def __init__(self) -> None:
        self.histogram = Histogram()
        self._recent_max_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._due_s = time.monotonic() + BEAT_S
        self._handle = self._loop.call_later(BEAT_S, self._beat)

    def _beat(self) -> None:
        now_s = time.monotonic()
        lag_s = max(0.0, now_s - self._due_s)
        self.histogram.add(lag_s)
        self._recent_max_s = max(self._recent_max_s, lag_s)
        self._due_s = now_s + BEAT_S
        self._handle = self._loop.call_later(BEAT_S, self._beat)

    def take_recent_max_s(self) -> float:
        """The worst since the last call."""
        worst_s, self._recent_max_s = self._recent_max_s, 0.0
        return worst_s

    def close(self) -> None:
        self._handle.cancel()


@dataclass(frozen=True, kw_only=True)
class PartWatch:
    """One process's own figures."""

    cpu_s: float
    wall_s: float
    lag: Histogram
    max_in_flight: int
    num_connections: int
    num_socket_errors: int
    prepare_waits: int
    cpu_wait_s: float = 0.0  # ready to run, while others ran


def waited_for_cpu_s() -> float:
    """How long this process' main thread has waited for a processor; 0 where nobody counts it."""
    try:
        return 1e-9 * int(SCHEDSTAT.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0


def own_lateness_s(record: RequestRecord) -> float | None:
    """Lateness that nobody asked for: without waits for a limit, or for a connection to open."""
    if record.lateness_s is None:
        return None
    return max(0.0, record.lateness_s - record.waited_for_cap_s - record.connect_s)


def join_watches(parts: Sequence[PartWatch], records: Sequence[RequestRecord]) -> SelfWatch:
    """All processes together; the worst where a sum would hide it."""
    lag, lateness = Histogram(), Histogram()
    for part in parts:
        lag.merge(part.lag)
    lateness.extend(late for r in records if (late := own_lateness_s(r)) is not None)
    return SelfWatch(
        num_processes=len(parts),
        cpu_s=sum(part.cpu_s for part in parts),
        cpu_utilization=max((p.cpu_s / p.wall_s for p in parts if p.wall_s > 0.0), default=0.0),
        loop_lag_p99_s=lag.quantile(0.99),
        loop_lag_max_s=lag.max_s,
        lateness_p50_s=lateness.quantile(0.5),
        lateness_p99_s=lateness.quantile(0.99),
        lateness_max_s=lateness.max_s,
        max_in_flight=sum(part.max_in_flight for part in parts),
        num_connections=sum(part.num_connections for part in parts),
        num_socket_errors=sum(part.num_socket_errors for part in parts),
        prepare_waits=sum(part.prepare_waits for part in parts),
        num_retries=sum(record.num_retries for record in records),
        cpu_wait_ratio=max((p.cpu_wait_s / p.wall_s for p in parts if p.wall_s > 0.0), default=0.0),
    )


def void_reason(watch: SelfWatch, limits: Limits, num_requests: int) -> str:
    """Why the client, and not the service, made this result; "" if it did not."""
    most_s = limits.max_lateness_s
    late = f"p99 {1000 * watch.lateness_p99_s:.1f} ms, {1000 * most_s:g} ms are allowed"
    if watch.lateness_p99_s > most_s:
        if watch.prepare_waits:
            cause = "payloads were not made in time"
        elif watch.cpu_utilization > BUSY_UTILIZATION:
            cause = f"its CPU was {watch.cpu_utilization:.0%} busy; use more processes"
        elif watch.cpu_wait_ratio > CROWDED_RATIO:
            cause = (
                f"it waited for a processor {watch.cpu_wait_ratio:.0%} of the time; other work "
                "shares them (limits.realtime goes before it)"
            )
        else:
            cause = f"its event loop lagged by up to {1000 * watch.loop_lag_max_s:.0f} ms"
        return f"requests were sent late ({late}): {cause}"
    if watch.loop_lag_p99_s > most_s:
        return (
            f"its event loop lagged (p99 {1000 * watch.loop_lag_p99_s:.1f} ms, "
            f"{1000 * most_s:g} ms are allowed), so replies were timed late"
        )
    if watch.num_socket_errors > MAX_SOCKET_ERROR_RATIO * max(1, num_requests):
        return (
            f"{watch.num_socket_errors} connections found no descriptor or port "
            f"(ulimit -n is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]})"
        )
    return ""
