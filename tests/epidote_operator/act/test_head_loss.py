"""Ray's head comes back as another one: its workers are replaced, and nobody else."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from epidote_core.roles import Role, WorkerState
from epidote_operator.act.head_loss import (
    LINGER_S,
    HeadMemory,
    excused,
    follow_head,
    look_at_head,
)
from epidote_operator.act.kubernetes_hands import Asked, KubernetesHands
from epidote_operator.bootstrap import missing_workers
from epidote_operator.handlers.indexing import slim_pod
from epidote_operator.observe.cluster_observer import gateway_urls
from epidote_operator.observe.gateway_client import FleetReport, WorkerReport
from epidote_operator.observe.pods import PodFleet
from epidote_operator.resources.fleet_values import Fleet as FleetValues
from epidote_operator.resources.head import gateway_deployment
from epidote_operator.resources.labels import HEAD_CHANGES, ROLE
from epidote_operator.resources.pod_notes import HEAD
from epidote_operator.spec.parsing import parse_service
from epidote_operator.spec.service_status import HeadStatus
from epidote_operator.status.conditions import timestamp
from epidote_operator.status.fleet import Fleet
from epidote_operator.status.head import followed, head_life, head_trouble
from epidote_operator.testing.service_story import service_manifest
from epidote_planner.fakes import policy
from epidote_planner.lane import DEFAULT_GROUP, Lane

DECODE = Lane(DEFAULT_GROUP, Role.DECODE)
ROLES = (Role.ENCODE, Role.PREFILL, Role.DECODE, Role.DECODE)


def values(**spec: Any) -> FleetValues:
    parsed = parse_service(service_manifest("web", "none", **spec)["spec"])
    return FleetValues(name="web", namespace="a", uid="u", spec=parsed, revision="r")


def head_pod(uid: str = "h", restarts: int = 0, *, ready: bool = True) -> dict[str, Any]:
    return {
        "metadata": {"name": f"head-{uid}", "uid": uid},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [
                {"name": "proxy", "restartCount": 7},
                {"name": "head", "restartCount": restarts},
            ],
        },
    }


@dataclass
class Cluster:
    """Worker pods, their head's pods, and an operator that ticks every ten seconds."""

    heads: list[dict[str, Any]]
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    known: list[str] = field(default_factory=list)  # workers that the gateway lists
    joined: PodFleet = field(default_factory=PodFleet)
    memory: HeadMemory = field(default_factory=HeadMemory)
    status: HeadStatus | None = None
    now_s: float = 1000.0
    max_pods: int | None = None
    writes: list[str] = field(default_factory=list)

    def make(self, name: str, role: Role) -> None:
        self.pods[name] = {
            "metadata": {
                "name": name,
                "uid": f"uid-{name}",
                "creationTimestamp": timestamp(self.now_s),
                "labels": {ROLE: role.value},
                "annotations": {},
            },
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        }

    async def merge(self, path: str, body: dict[str, Any]) -> None:
        name = path.rpartition("/")[2]
        self.writes.append(f"note {name}")
        self.pods[name]["metadata"]["annotations"] |= body["metadata"]["annotations"]

    async def delete(self, path: str, *, grace_s: int, uid: str) -> bool:
        name = path.rpartition("/")[2]
        assert self.pods[name]["metadata"]["uid"] == uid
        self.writes.append(f"delete {name}")
        self.pods[name]["metadata"]["deletionTimestamp"] = timestamp(self.now_s)
        return True

    async def tick(self, after_s: float = 10.0) -> tuple[Fleet, list[str], list[str]]:
        """The fleet, what was written, reasons of Events."""
        self.now_s += after_s
        self.writes.clear()
        roles = {name: Role(pod["metadata"]["labels"][ROLE]) for name, pod in self.pods.items()}
        told = tuple(
            WorkerReport(worker_id=n, role=roles[n], state=WorkerState.ROUTABLE, epoch=1)
            for n in self.known
        )
        workers = self.pods.values()
        head = look_at_head(self.status, values(), self.heads, "r", workers, self.memory)
        self.joined.head = head.life
        self.joined.excused = excused(self.memory, head, workers)
        fleet = self.joined.fleet(
            self.pods.values(), FleetReport(at_s=self.now_s, workers=told), self.now_s
        )
        hands = KubernetesHands(
            api=self,  # type: ignore[arg-type]
            namespace="a",
            service="web",
            pods=self.pods,
            gateways={},
            make_pod=lambda name, lane, at_s: {},
            asked=Asked(),
            grace_s=150,
            max_pods=self.max_pods,
        )
        news = await follow_head(hands, fleet, self.memory, head, wanted=len(ROLES))
        self.status = head.now
        return fleet, list(self.writes), [item.reason for item in news]

    def restarted(self) -> None:
        """The operator's process is another one."""
        self.joined, self.memory = PodFleet(), HeadMemory()


async def at_rest(max_pods: int | None = None) -> Cluster:
    cluster = Cluster([head_pod()], max_pods=max_pods)
    for number, role in enumerate(ROLES):
        cluster.make(f"w{number}", role)
    cluster.known = list(cluster.pods)
    await cluster.tick()
    assert (await cluster.tick())[1:] == ([], [])
    return cluster


async def test_workers_are_noted_once_when_the_fleet_lists_them() -> None:
    cluster = Cluster([head_pod()])
    cluster.make("w0", Role.DECODE)
    assert (await cluster.tick())[1:] == ([], []), "it may wait for its head yet"
    cluster.known = ["w0"]
    assert (await cluster.tick())[1] == ["note w0"]
    assert cluster.pods["w0"]["metadata"]["annotations"] == {HEAD: "h.0"}
    assert (await cluster.tick())[1] == []


@pytest.mark.parametrize(
    "successor", [head_pod(restarts=1), head_pod("other")], ids=["container", "pod"]
)
async def test_workers_of_a_head_that_became_another_one_are_replaced_and_end(
    successor: dict[str, Any],
) -> None:
    cluster = await at_rest()
    cluster.heads = [successor]
    fleet, writes, told = await cluster.tick()
    assert told == ["HeadReplaced"]
    assert writes == [], "they serve on as long as Ray lets them"
    starts = missing_workers(fleet, policy(), None, {w.lane: 1 for w in fleet.workers})
    assert sum(start.count for start in starts) == len({w.lane for w in fleet.workers})
    assert (await cluster.tick())[1:] == ([], []), "it is told once"
    cluster.pods["w1"]["status"]["phase"] = "Failed"
    assert (await cluster.tick())[1] == ["delete w1"]
    assert (await cluster.tick(LINGER_S))[1] == ["delete w0", "delete w2", "delete w3"]
    assert (await cluster.tick())[1] == []


async def test_no_failure_of_a_lost_worker_holds_new_starts_up() -> None:
    cluster = await at_rest()
    cluster.heads = [head_pod(restarts=1)]
    cluster.pods["w0"]["status"]["phase"] = "Failed"
    fleet, *_ = await cluster.tick()
    assert all(worker.for_planner().leaving for worker in fleet.workers)
    assert {w.for_planner().state for w in fleet.workers} == {WorkerState.DRAINING}


async def test_a_head_that_is_away_loses_nobody() -> None:
    """The fleet serves on without it."""
    cluster = await at_rest()
    for heads in ([], [head_pod(restarts=1, ready=False)], [head_pod(), head_pod("second")]):
        cluster.heads = heads
        fleet, writes, told = await cluster.tick()
        assert len(fleet.staying) == len(ROLES)
        assert (writes, told) == ([], [])
    cluster.heads = [head_pod()]
    assert (await cluster.tick())[1:] == ([], [])


async def test_a_full_budget_is_made_room_in_at_once() -> None:
    cluster = await at_rest(max_pods=len(ROLES) + 1)
    cluster.heads = [head_pod(restarts=1)]
    assert (await cluster.tick())[1] == ["delete w0", "delete w1", "delete w2"]
    assert (await cluster.tick())[1] == [], "one new worker finds room beside the fourth"


async def test_an_operator_that_was_away_meanwhile_finds_out() -> None:
    cluster = await at_rest()
    cluster.restarted()
    cluster.heads = [head_pod("other")]
    fleet, _, told = await cluster.tick()
    assert told == ["HeadReplaced"]
    assert all(worker.has_lost_head for worker in fleet.workers)


async def test_a_worker_that_came_up_meanwhile_is_taken_for_the_former_heads() -> None:
    cluster = await at_rest()
    cluster.make("w4", Role.DECODE)
    cluster.heads = [head_pod(restarts=1)]
    assert (await cluster.tick())[1] == ["note w4"]
    cluster.make("w5", Role.DECODE)
    fleet, *_ = await cluster.tick()
    lost = {worker.name for worker in fleet.workers if worker.has_lost_head}
    assert lost == {"w0", "w1", "w2", "w3", "w4"}


async def test_a_head_that_restarted_before_anybody_joined_it_is_no_loss() -> None:
    """A new service on an overloaded node: nobody is told, replaced, or taken to have failed."""
    cluster = Cluster([head_pod()])
    for number, role in enumerate(ROLES):
        cluster.make(f"w{number}", role)
    await cluster.tick()
    cluster.heads = [head_pod(restarts=1)]
    fleet, writes, told = await cluster.tick()
    assert (len(fleet.staying), writes, told) == (len(ROLES), [], [])
    assert cluster.status == HeadStatus(revision="r", life="h.1"), "gateways stay as well"
    cluster.pods["w0"]["status"]["phase"] = "Failed"  # it had begun to join the former
    fleet, writes, told = await cluster.tick()
    assert (writes, told) == (["delete w0"], [])
    assert all(w.for_planner().state is not WorkerState.FAILED for w in fleet.workers)
    cluster.known = ["w1", "w2", "w3"]
    fleet, *_ = await cluster.tick()
    assert not any(worker.has_lost_head for worker in fleet.staying)
    cluster.heads = [head_pod(restarts=2)]
    assert (await cluster.tick())[2] == ["HeadReplaced"], "now there is somebody to lose"


def crashing(message: str = "", restarts: int = 1) -> dict[str, Any]:
    """A head's pod that waits before its next start."""
    pod = head_pod(restarts=restarts, ready=False)
    (_, status) = pod["status"]["containerStatuses"]
    status |= {
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": message}},
    }
    return slim_pod(pod)


async def test_workers_that_end_for_want_of_a_head_have_not_failed() -> None:
    cluster = Cluster([crashing("127.0.0.1:6379 Address already in use")])
    cluster.make("w0", Role.DECODE)
    cluster.pods["w0"]["status"]["phase"] = "Failed"
    fleet, writes, told = await cluster.tick()
    assert [w.for_planner().state for w in fleet.workers] == [WorkerState.DRAINING]
    assert (writes, told) == (["delete w0"], [])


def test_a_head_that_does_not_come_up_is_told_with_its_last_words() -> None:
    assert "ends whenever it starts: port in use" in head_trouble([crashing("port in use\n")])
    assert "Error, code 1" in head_trouble([crashing()])
    for heads in ([], [head_pod()], [head_pod(ready=False)], [head_pod(restarts=1, ready=False)]):
        assert head_trouble(heads) == ""
    assert head_trouble([crashing(), head_pod("other")]) == "", "another one listens"


def test_another_revision_has_a_head_of_its_own() -> None:
    before = HeadStatus(revision="r", life="h.0", changes=2)
    look = followed(before, "s", "x.0", joined={"h.0"})
    assert (look.former, look.changes) == (None, 0)
    assert look.now == HeadStatus(revision="s", life="x.0")
    again = followed(before, "r", "x.0", joined={"h.0"})
    assert (again.former, again.changes) == ("h.0", 3)


def test_kuberay_looks_after_its_own_head() -> None:
    spec = values(cluster={"provider": "KubeRay"})
    assert look_at_head(None, spec, [head_pod()], "r", [], HeadMemory()).life is None
    assert head_life([head_pod()]) == "h.0"


def test_gateways_roll_when_the_head_became_another_one_and_not_before() -> None:
    def annotations(fleet: FleetValues) -> dict[str, str]:
        found: dict[str, str] = gateway_deployment(fleet)["spec"]["template"]["metadata"].get(
            "annotations", {}
        )
        return found

    fleet = values(gateway={"template": {"metadata": {"annotations": {"mine": "1"}}}})
    assert annotations(fleet) == {"mine": "1"}
    changed = FleetValues(**{**vars(fleet), "head_changes": 2})
    assert annotations(changed) == {"mine": "1", HEAD_CHANGES: "2"}


def test_gateways_that_know_the_latest_head_are_asked_first() -> None:
    def gateway(name: str, address: str, **annotations: str) -> dict[str, Any]:
        metadata = {"name": name, "annotations": annotations}
        return {"metadata": metadata, "status": {"phase": "Running", "podIP": address}}

    pods = [
        gateway("a", "10.0.0.1"),
        gateway("b", "10.0.0.2", **{HEAD_CHANGES: "1"}),
        gateway("c", "10.0.0.3", **{HEAD_CHANGES: "10"}),
        gateway("d", "10.0.0.4", **{HEAD_CHANGES: "spoilt"}),
    ]
    found = [url.removeprefix("http://10.0.0.")[0] for url in gateway_urls(pods)]
    assert found == ["3", "2", "1", "4"]


@dataclass
class Register:
    """A gateway, as far as the number of workers is concerned."""

    url: str
    told: list[int] = field(default_factory=list)

    async def set_num_workers(self, number: int) -> None:
        self.told.append(number)

    async def set_roles(self, counts: Any) -> None:
        return


async def test_a_new_heads_register_is_told_how_many_workers_there_are() -> None:
    """It begins with what the head's command says: workers beyond that would wait for ever."""
    old, new = Register("http://10.0.0.1:8000"), Register("http://10.0.0.2:8000")
    asked, counts = Asked(head="h.0"), Counter({DECODE: 4})

    async def tell(*gateways: Register, known: int | None = None) -> None:
        hands = KubernetesHands(
            api=None,  # type: ignore[arg-type]
            namespace="a",
            service="web",
            pods={},
            gateways={gateway.url: gateway for gateway in gateways},  # type: ignore[misc]
            make_pod=lambda name, lane, at_s: {},
            asked=asked,
            grace_s=1,
        )
        await hands.match_size(counts, known)
        await asyncio.gather(*asked.switches.values())

    for _ in range(3):
        await tell(old)
    assert old.told == [4], "once"
    asked.head = None  # away
    await tell(old)
    assert old.told == [4]
    asked.head = "h.1"
    await tell(old)
    assert old.told == [4, 4], "the same gateway may have joined the new head"
    await tell(new, old)
    await tell(new, old)
    assert (old.told, new.told) == ([4, 4], [4])
    await tell(new, old, known=4)
    assert new.told == [4]
    await tell(new, old, known=1)
    assert new.told == [4, 4], "somebody else gave it another size"
