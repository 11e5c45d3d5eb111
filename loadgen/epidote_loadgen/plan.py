"""This file is about everything a run is told: target, arrivals, workload, promises, limits.

A plan can be pickled: every process of a run gets the same one and takes its part of the slots.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from epidote_loadgen.arrivals.closed_loop import ClosedLoop
from epidote_loadgen.records import Schedule, Workload
from epidote_loadgen.slo import SloTable


@dataclass(frozen=True, kw_only=True)
class Target:
    """An OpenAI-compatible server. `url` is http://, https:// or unix:///path/to.sock.

    Environment variables never choose a proxy: a load test through a forgotten one measures it.
    """

    url: str
    api_key: str = field(default="", repr=False)  # never printed, logged or stored
    ca_file: str = ""  # PEM; "": the system's
    verify_tls: bool = True
    proxy_url: str = ""  # http://host:port; https targets are tunnelled
    headers: tuple[tuple[str, str], ...] = ()


class CapPolicy(StrEnum):
    """What happens to a request whose turn comes while `max_in_flight` are open."""

    WAIT = "wait"  # sent as soon as there is room; its latency still counts from its turn
    DROP = "drop"  # not sent: a miss


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the client may use, and how patient it is. All are of the whole run."""

    max_in_flight: int | None = None
    on_cap: CapPolicy = CapPolicy.WAIT
    max_connections: int | None = None  # requests beyond wait for one
    request_timeout_s: float = 300.0  # from the actual send to the last byte
    connect_timeout_s: float = 10.0
    # From the start; then sending ends, as by an interrupt. None: the arrivals' own end.
    run_timeout_s: float | None = None
    drain_s: float = 300.0  # after the last send; what is still open then is unfinished
    max_lateness_s: float = 0.05  # p99 of our own lateness; more voids the run
    realtime: bool = False  # senders at real-time priority, ahead of everything else on the host

    def __post_init__(self) -> None:
        for name in ("max_in_flight", "max_connections"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: must be >= 1, got {value}")
        for name in (
            "request_timeout_s",
            "connect_timeout_s",
            "run_timeout_s",
            "drain_s",
            "max_lateness_s",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0.0:
                raise ValueError(f"{name}: must be > 0 s, got {value}")


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """One run, completely. `config` is its source as plain values, without secrets."""

    target: Target
    arrivals: Schedule | ClosedLoop
    workload: Workload
    slo: SloTable
    limits: Limits = field(default_factory=Limits)
    seed: int = 0
    num_processes: int | None = None  # None: as many as the rate needs and the host has cores
    confidence: float = 0.95
    duration_s: float | None = None  # of the arrivals, for progress; None: not known
    config: Mapping[str, Any] = field(default_factory=dict)
    config_digest: str = ""
