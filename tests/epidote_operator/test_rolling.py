"""Rollouts tick by tick, without metrics to scale by, and what is taken away after them."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from epidote_core.modality import Modality
from epidote_core.roles import Role, WorkerState
from epidote_operator.act.fakes import PretendHands
from epidote_operator.resources.fleet_values import Fleet as FleetValues
from epidote_operator.resources.labels import REVISION
from epidote_operator.rolling import Rolling, clean_up
from epidote_operator.spec.parsing import parse_service
from epidote_operator.spec.role_bounds import RoleName
from epidote_operator.spec.scaling import ScalingMode
from epidote_operator.spec.service_status import (
    MultimodalServiceStatus,
    RoleStatus,
    RolloutStatus,
)
from epidote_operator.status.fleet import Fleet, FleetWorker, Outcome, Unplaced
from epidote_operator.status.render import Report, render
from epidote_operator.status.rollout import RolloutStep, wanted_lanes
from epidote_operator.testing.service_story import service_manifest
from epidote_planner.fakes import policy
from epidote_planner.lane import Lane
from epidote_planner.policy import ModalityGroup

E, P, D = (Lane("default", role) for role in (Role.ENCODE, Role.PREFILL, Role.DECODE))
POLICY = policy()
FULL = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."


def values(revision: str) -> FleetValues:
    spec = parse_service(service_manifest("web", "none")["spec"])
    return FleetValues(name="web", namespace="default", uid="u", spec=spec, revision=revision)


@dataclass
class RevisionHands(PretendHands):
    """Hands on one revision, under a budget of pods that both share."""

    everybody: "Service | None" = None
    grace_s: int = 30

    @property
    def max_pods(self) -> int | None:
        return None if self.everybody is None else self.everybody.budget

    @property
    def pods(self) -> dict[str, FleetWorker]:
        assert self.everybody is not None
        return {**self.everybody.old.workers, **self.everybody.new.workers}

    async def add_workers(self, lane: Lane, count: int, now_s: float) -> int:
        assert self.everybody is not None
        self.room = max(0, self.everybody.budget - len(self.pods))
        return await super().add_workers(lane, count, now_s)

    def a_tick_later(self) -> None:
        """Whoever was told to leave is gone, whoever started and has a place serves."""
        assert self.everybody is not None
        service = self.everybody
        self.workers = {n: w for n, w in self.workers.items() if not w.is_leaving}
        for name, worker in self.workers.items():
            others = [w for w in self.pods.values() if w.unplaced is None and w.name != name]
            if worker.state is WorkerState.STARTING and len(others) >= service.places:
                pod = worker.unplaced or Unplaced(since_s=service.now_s, why=FULL)
                self.workers[name] = replace(worker, unplaced=pod)
                continue
            serves = replace(worker, state=WorkerState.ROUTABLE, said=worker.lane, unplaced=None)
            self.workers[name] = serves


@dataclass
class Service:
    """A service in mode Off, by hand: two revisions and the status."""

    budget: int
    places: int = 1000  # of the nodes, for both revisions
    old: RevisionHands = field(default_factory=RevisionHands)
    new: RevisionHands = field(default_factory=RevisionHands)
    status: MultimodalServiceStatus = field(default_factory=MultimodalServiceStatus)
    now_s: float = 1000.0
    has_shifted: bool = False
    gateway_is_ready: bool = True  # the kubelet says so

    def __post_init__(self) -> None:
        self.old.everybody = self.new.everybody = self

    def show(self, fleet: Fleet, rollout: RolloutStatus | None) -> None:
        report = Report(
            now_s=self.now_s,
            fleet=fleet,
            plan=None,
            outcome=Outcome(),
            mode=ScalingMode.OFF,
            policy=POLICY,
            rollout=rollout,
        )
        self.status = render(report, self.status)[0]

    async def roll(self, *, num_ticks: int = 60, until_over: bool = True) -> None:
        """Until the rollout is over, or for so many ticks."""
        api: Any = SilentApi()
        rolling = Rolling(
            api=api,
            values=values("b"),
            hands_old=self.old,  # type: ignore[arg-type]
            hands_new=self.new,  # type: ignore[arg-type]
            surge=1,
            deadline_s=60.0,
            gateways=[gateway(is_ready=self.gateway_is_ready)],
        )
        for _ in range(num_ticks):
            self.now_s += 10.0
            wanted = wanted_lanes(self.status, POLICY)
            old, new = self.old.fleet(self.now_s), self.new.fleet(self.now_s)
            if not self.has_shifted:
                before = self.status.rollout
                move, rollout = await rolling.step(old, new, wanted, before, self.now_s)
                self.has_shifted = move.step is RolloutStep.SHIFT
                self.show(old, rollout)
            else:
                left = self.status.rollout
                if left is not None:
                    left = await rolling.complete(new, wanted, left, self.now_s)
                self.show(new, left)
                for worker in old.staying:
                    await self.old.remove_worker(worker, drain=True)
                if left is None and not old.workers:
                    return
            self.old.a_tick_later()
            self.new.a_tick_later()
        if until_over:
            pytest.fail(f"not over after {num_ticks} ticks: {self.status.rollout}")


def gateway(*, is_ready: bool) -> dict[str, Any]:
    condition = {"type": "Ready", "status": str(is_ready)}
    return {"metadata": {"name": "web-gateway-b"}, "status": {"conditions": [condition]}}


class SilentApi:
    async def apply(self, path: str, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        return body

    async def get(self, path: str, **_: Any) -> None:
        return None


def served_by(*lanes: Lane) -> dict[str, FleetWorker]:
    return {
        f"old-{number}": FleetWorker(
            name=f"old-{number}", lane=lane, said=lane, state=WorkerState.ROUTABLE, since_s=0.0
        )
        for number, lane in enumerate(lanes)
    }


@pytest.mark.parametrize("budget", [6, 7, 12])
async def test_a_rollout_without_a_planner_ends_with_as_many_workers_as_it_began_with(
    budget: int,
) -> None:
    """Old workers that make room for new ones do not lower what is wanted."""
    service = Service(budget)
    service.old.workers = served_by(E, P, D, D, D, D)
    service.show(service.old.fleet(0.0), None)
    await service.roll()
    assert service.new.fleet(0.0).ready() == {E: 1, P: 1, D: 4}
    assert [role.desired for role in service.status.roles] == [1, 1, 4]


@pytest.mark.parametrize("places", [6, 7])
async def test_nodes_without_room_for_a_surge_end_with_as_many_workers_as_well(
    places: int,
) -> None:
    """Nobody named a GPU budget, and the scheduler has no place: old workers leave one by one."""
    service = Service(1000, places)
    service.old.workers = served_by(E, P, D, D, D, D)
    service.show(service.old.fleet(0.0), None)
    for _ in range(99):
        await service.roll(num_ticks=1, until_over=False)
        assert service.status.rollout is None or not service.status.rollout.failed
        if not service.has_shifted:
            assert all(service.old.fleet(0.0).ready()[lane] for lane in (E, P, D))
        placed = [w for w in service.new.pods.values() if w.unplaced is None]
        assert len(placed) <= places
        if service.status.rollout is None and not service.old.workers:
            break
    assert service.new.fleet(0.0).ready() == {E: 1, P: 1, D: 4}


async def test_clients_move_when_a_service_would_lead_them_to_the_new_gateways() -> None:
    """A gateway that answers us is not yet an endpoint: connections would be refused."""
    service = Service(12, gateway_is_ready=False)
    service.old.workers = served_by(E, P, D)
    service.show(service.old.fleet(0.0), None)
    await service.roll(num_ticks=10, until_over=False)
    assert service.new.fleet(0.0).ready() == {E: 1, P: 1, D: 1}
    assert not service.has_shifted
    assert service.status.rollout is not None
    assert service.status.rollout.message == "0 of 1 new gateways are ready"
    service.gateway_is_ready = True
    await service.roll()
    assert service.has_shifted


async def test_a_new_worker_that_ends_is_replaced_once_a_back_off() -> None:
    service = Service(12)
    service.old.workers = served_by(E, P, D)
    service.show(service.old.fleet(0.0), None)
    crashed = FleetWorker(name="crashed", lane=D, state=WorkerState.FAILED, since_s=1000.0)
    service.new.workers = {"crashed": crashed}
    await service.roll(num_ticks=120)
    assert service.new.calls.count("remove_worker crashed now") == 1
    assert service.new.fleet(0.0).ready() == {E: 1, P: 1, D: 1}


async def test_what_is_wanted_outlives_the_operator_and_a_second_change() -> None:
    service = Service(6)
    service.old.workers = served_by(E, P, D)  # three have left already
    begun = RolloutStatus(
        revision="another",
        ready_workers=0,
        old_workers=3,
        wanted={"encode": 1, "prefill": 1, "decode": 4},
        progressed_at="1970-01-01T00:00:00Z",
    )
    service.show(service.old.fleet(0.0), begun)
    read = MultimodalServiceStatus.model_validate_json(
        service.status.model_dump_json(by_alias=True)
    )
    assert wanted_lanes(read, POLICY) == {E: 1, P: 1, D: 4}
    await service.roll()
    assert service.new.fleet(0.0).ready() == {E: 1, P: 1, D: 4}


def test_advice_that_is_not_followed_is_not_what_a_new_revision_gets() -> None:
    """In Advisory mode the roles show what is advised, and six workers are kept."""
    advised = {RoleName.ENCODE: 1, RoleName.PREFILL: 1, RoleName.DECODE: 1}
    status = MultimodalServiceStatus(
        roles=tuple(RoleStatus(name=name, desired=count) for name, count in advised.items()),
        kept_workers={"encode": 1, "prefill": 2, "decode": 3},
    )
    assert wanted_lanes(status, POLICY) == {E: 1, P: 2, D: 3}


def test_groups_that_come_with_a_new_revision_share_what_is_kept() -> None:
    status = MultimodalServiceStatus(kept_workers={"encode": 2, "prefill": 3, "decode": 4})
    text = ModalityGroup(name="text", modalities=(Modality.TEXT,))
    image = ModalityGroup(name="image", modalities=(Modality.IMAGE,))
    wanted = wanted_lanes(status, replace(POLICY, groups=(text, image)))
    decoders = [count for lane, count in wanted.items() if lane.role is Role.DECODE]
    assert decoders == [2, 2]


def test_bounds_that_were_lowered_meanwhile_hold() -> None:
    begun = RolloutStatus(
        revision="b",
        ready_workers=0,
        old_workers=6,
        wanted={"encode": 2, "prefill": 1, "decode": 4},
        progressed_at="1970-01-01T00:00:00Z",
    )
    smaller = replace(POLICY, gpu_budget=5)
    assert wanted_lanes(MultimodalServiceStatus(rollout=begun), smaller) == {E: 2, P: 1, D: 2}


# What is left of other revisions


@dataclass
class Objects:
    """An API server's Deployments and Services, found by path."""

    stored: dict[str, dict[str, Any]]
    calls: list[str] = field(default_factory=list)

    async def request(self, method: str, path: str, *, params: Any = None) -> dict[str, Any]:
        self.calls.append(f"{method} {path}")
        assert "notin (new)" in params["labelSelector"]
        found = [item for key, item in self.stored.items() if key.rpartition("/")[0] == path]
        return {"items": found}

    async def delete(self, path: str, *, uid: str = "", **_: Any) -> bool:
        assert self.stored[path]["metadata"]["uid"] == uid
        del self.stored[path]
        return True


def left(kind: str, name: str, owner: str) -> tuple[str, dict[str, Any]]:
    group = "/apis/apps/v1" if kind == "deployments" else "/api/v1"
    metadata = {"name": name, "uid": f"uid-{name}", "ownerReferences": [{"uid": owner}]}
    return f"{group}/namespaces/default/{kind}/{name}", {"metadata": metadata}


async def test_a_head_whose_pods_left_between_two_looks_is_found_and_taken_away() -> None:
    uid = values("new").uid
    api = Objects(
        dict(
            [
                left("deployments", "web-head-old", uid),
                left("services", "web-head-old", uid),
                left("services", "theirs", "another"),
            ]
        )
    )
    args: Any = (api, values("new"), [], [])
    assert not await clean_up(*args, keep={"new"}, ends_gateways=True, looks=False)
    assert not api.calls, "at rest it costs nothing"
    assert await clean_up(*args, keep={"new"}, ends_gateways=True, looks=True)
    assert [path.rpartition("/")[2] for path in api.stored] == ["theirs"]
    assert not await clean_up(*args, keep={"new"}, ends_gateways=True, looks=True), (
        "nothing is left"
    )


async def test_old_gateways_go_only_once_clients_had_time_to_hear_of_the_new_ones() -> None:
    uid = values("new").uid
    api = Objects(dict([left("deployments", "web-gateway-old", uid)]))
    pod = {"metadata": {"name": "web-gateway-old-1", "labels": {REVISION: "old"}}}
    args: Any = (api, values("new"), [], [pod])
    assert await clean_up(*args, keep={"new"}, ends_gateways=False, looks=True)
    assert list(api.stored)
    assert not api.calls
    assert await clean_up(*args, keep={"new"}, ends_gateways=True, looks=True)
    assert not api.stored
