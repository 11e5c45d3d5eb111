"""This file is about which replica a plain Serve handle reaches."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray")

from epidote_workers.role_router import choose


@dataclass
class Replica:
    name: str
    routing_stats: dict[str, Any] = field(default_factory=dict)

    @property
    def replica_id(self) -> Any:
        return SimpleNamespace(unique_id=self.name)


def replica(name: str, role: str, load: int = 0, state: str = "routable") -> Replica:
    return Replica(name, {"role": role, "state": state, "load": load})


FLEET = [
    replica("e", "encode"),
    replica("p1", "prefill", load=3),
    replica("p2", "prefill", load=1),
    replica("p3", "prefill", state="draining"),
    replica("a", "all", load=2),
    Replica("new"),
]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"target": "p3"}, ["p3"]),  # an admin call reaches a worker in any state
        ({"target": "new"}, ["new"]),
        ({"target": "gone"}, []),
        ({"target": "p1", "role": "decode"}, ["p1"]),  # there `role` is an argument of the call
        ({"role": "prefill"}, ["p2", "a", "p1"]),  # least loaded first; `all` serves it too
        ({"role": "encode"}, ["e", "a"]),
        ({"role": "decode"}, ["a"]),
        ({"role": "all"}, ["a"]),
        ({}, ["e", "p3", "new", "p2", "a", "p1"]),
    ],
)
def test_a_call_reaches_the_replicas_that_fit_best_first(wanted, names):
    ranks = choose(FLEET, **wanted)
    assert [found.name for rank in ranks for found in rank] == names
