"""This file is about which replica a plain Serve handle reaches."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray")

from ray.serve.request_router import PendingRequest

from epidote_workers.role_router import RoleRouter, choose


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


def waiting_router(replicas: list[Replica]) -> RoleRouter:
    """Serve's own way of asking again and again, without its connections."""
    router = RoleRouter.__new__(RoleRouter)
    router._replicas = {found.name: found for found in replicas}
    router._replicas_list = replicas
    router.num_routing_tasks_in_backoff = 0
    router.num_routing_tasks_in_backoff_gauge = SimpleNamespace(set=lambda value: None)
    router.initial_backoff_s = router.max_backoff_s = 0.001
    router.backoff_multiplier = 1
    return router


async def test_a_call_to_a_replica_that_is_gone_waits_and_lets_the_router_hear_of_others():
    replicas = [Replica("b")]
    request = PendingRequest(args=[], kwargs={"target": "a"}, metadata=None)
    router = waiting_router(replicas)
    assert await router.choose_replicas(replicas, request) == []
    assert request.routing_context.should_backoff  # else the next line would never end
    asking = asyncio.ensure_future(anext(router._choose_replicas_with_backoff(request)))
    await asyncio.sleep(0.05)
    assert not asking.done()
    router._replicas_list = [*replicas, Replica("a")]
    (found,) = await asyncio.wait_for(asking, 60)
    assert found.name == "a"
