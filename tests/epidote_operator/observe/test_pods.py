"""Pods and workers joined: who is there, in which state, since when."""

from typing import Any

from epidote_core.roles import Role, WorkerState
from epidote_operator.observe.cluster_observer import gateway_urls
from epidote_operator.observe.gateway_client import FleetReport, WorkerReport
from epidote_operator.observe.pods import PodFleet
from epidote_operator.resources.labels import REVISION, ROLE
from epidote_operator.resources.pod_notes import (
    ASSIGNMENT,
    HEAD,
    assignment,
    marked,
    read_notes,
    settled,
)
from epidote_operator.status.fleet import SwitchIntent
from epidote_planner.lane import Lane

ENCODE, DECODE = Lane("default", Role.ENCODE), Lane("default", Role.DECODE)
CREATED, CREATED_S = "1970-01-01T00:01:40Z", 100.0
INTENT = SwitchIntent(source=DECODE, target=ENCODE, epoch=1, started_s=1.0, deadline_s=61.0)


def pod(
    name: str, *, ready: bool = True, phase: str = "Running", **metadata: Any
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "a",
            "uid": f"uid-{name}",
            "creationTimestamp": CREATED,
            "labels": {ROLE: "decode"},
            "annotations": {ASSIGNMENT: assignment(DECODE, 150.0)},
            **metadata,
        },
        "status": {
            "phase": phase,
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def report(*workers: WorkerReport, at_s: float = 200.0) -> FleetReport:
    return FleetReport(at_s=at_s, workers=workers)


def told(name: str, role: Role = Role.DECODE, **fields: Any) -> WorkerReport:
    return WorkerReport(
        worker_id=name, role=role, **{"state": WorkerState.ROUTABLE, "epoch": 3, **fields}
    )


def test_a_worker_that_speaks_is_believed() -> None:
    (worker,) = PodFleet().fleet([pod("w")], report(told("w", num_running=2)), 200.0).workers
    assert (worker.state, worker.said, worker.epoch) == (WorkerState.ROUTABLE, DECODE, 3)
    assert (worker.since_s, worker.num_running, worker.serves) == (150.0, 2, True)


def test_a_pod_without_a_worker_starts_since_it_was_created() -> None:
    fresh = pod("w", annotations={ASSIGNMENT: assignment(DECODE, CREATED_S)})
    (worker,) = PodFleet().fleet([fresh], report(), 200.0).workers
    assert (worker.state, worker.since_s) == (WorkerState.STARTING, CREATED_S)


def test_a_worker_that_has_served_and_is_missing_has_its_time_from_then_on() -> None:
    """Else a gateway that was restarted would have the whole fleet given up."""
    fleet = PodFleet()
    (worker,) = fleet.fleet([pod("w")], report(), 900.0).workers
    assert (worker.state, worker.since_s) == (WorkerState.STARTING, 900.0)
    (later,) = fleet.fleet([pod("w")], report(), 950.0).workers
    assert later.since_s == 900.0
    (back,) = fleet.fleet([pod("w")], report(told("w")), 960.0).workers
    assert back.state is WorkerState.ROUTABLE


def test_one_that_had_joined_and_never_switched_has_its_time_as_well() -> None:
    """Known by this operator's memory, or by the note that an earlier one left."""
    fresh = {ASSIGNMENT: assignment(DECODE, CREATED_S)}
    seen = PodFleet()
    seen.fleet([pod("w", annotations=fresh)], report(told("w")), 800.0)
    for fleet, notes in ((seen, fresh), (PodFleet(), {**fresh, HEAD: "h.0"})):
        (worker,) = fleet.fleet([pod("w", annotations=notes)], report(), 900.0).workers
        assert (worker.state, worker.since_s) == (WorkerState.STARTING, 900.0)


def test_without_any_gateway_what_served_goes_on_serving() -> None:
    fleet = PodFleet().fleet([pod("w"), pod("x", ready=False)], None, 900.0, message="away")
    assert [worker.state for worker in fleet.workers] == [
        WorkerState.ROUTABLE,
        WorkerState.STARTING,
    ]
    assert not fleet.is_known
    assert fleet.workers[1].since_s == 900.0, "nobody is given up by a blind operator"


def test_a_pod_that_ended_has_failed_and_one_that_leaves_counts_nowhere() -> None:
    fleet = PodFleet().fleet(
        [pod("a", phase="Failed"), pod("b", deletionTimestamp=CREATED)],
        report(told("a"), told("b")),
        200.0,
    )
    assert fleet.workers[0].state is WorkerState.FAILED
    assert fleet.workers[1].is_leaving
    assert not fleet.workers[1].serves
    assert fleet.assigned() == {DECODE: 1}


def test_a_switch_under_way_counts_for_where_it_goes() -> None:
    switching = pod("w")
    for kind, changes in marked(INTENT)["metadata"].items():
        switching["metadata"][kind] = {**switching["metadata"][kind], **changes}
    (worker,) = (fleet := PodFleet().fleet([switching], report(told("w")), 200.0)).workers
    assert worker.intent == INTENT
    assert not worker.is_labelled
    assert not worker.serves
    assert fleet.assigned() == {ENCODE: 1}
    seen = worker.for_planner()
    assert (seen.role, seen.state) == (Role.ENCODE, WorkerState.DRAINING)


def test_an_older_revision_is_outdated() -> None:
    old = pod("w", labels={ROLE: "decode", REVISION: "a"})
    (worker,) = PodFleet().fleet([old], report(told("w")), 0.0, revision="b").workers
    assert worker.is_outdated


def test_notes_that_somebody_spoilt_count_as_missing() -> None:
    notes = read_notes(pod("w", annotations={ASSIGNMENT: "{", "epidote.dev/switch": "{}"}), 5.0)
    assert (notes.lane, notes.since_s, notes.intent) == (DECODE, 5.0, None)


def test_a_worker_whose_notes_were_spoilt_is_planned_for_as_what_it_says() -> None:
    """Else a plan would be made, and carried out, for roles that nobody has."""
    spoilt = pod("w", labels={ROLE: "prefill"}, annotations={ASSIGNMENT: "nonsense"})
    (worker,) = PodFleet().fleet([spoilt], report(told("w", Role.ENCODE)), 200.0).workers
    assert (worker.lane, worker.is_labelled) == (ENCODE, False)
    assert worker.for_planner().role is Role.ENCODE


def test_a_worker_between_two_roles_without_an_intent_is_adrift_since_it_was_seen() -> None:
    fleet = PodFleet()

    def adrift(state: WorkerState, at_s: float, **fields: Any) -> float | None:
        seen = fleet.fleet([pod("w")], report(told("w", state=state, **fields)), at_s)
        return seen.workers[0].adrift_since_s

    assert adrift(WorkerState.DRAINING, 200.0) == 200.0
    assert adrift(WorkerState.VERIFYING, 210.0) == 200.0
    assert adrift(WorkerState.ROUTABLE, 220.0) is None
    assert adrift(WorkerState.VERIFYING, 230.0, epoch=0) is None, "its first role"


def test_a_worker_counts_as_ready_when_its_pod_is_ready_as_well() -> None:
    fleet = PodFleet().fleet([pod("w"), pod("x", ready=False)], report(told("w"), told("x")), 200.0)
    assert [worker.serves for worker in fleet.workers] == [True, True]
    assert fleet.ready() == {DECODE: 1}


def test_settling_drops_the_intent_and_restores_the_routes() -> None:
    metadata = settled(ENCODE, 9.0)["metadata"]
    assert metadata["annotations"]["epidote.dev/switch"] is None
    assert metadata["labels"][ROLE] == "encode"
    told_again = pod("w", labels=metadata["labels"], annotations=metadata["annotations"])
    del told_again["metadata"]["annotations"]["epidote.dev/switch"]
    assert read_notes(told_again, 0.0).lane == ENCODE


def test_gateways_are_asked_where_they_run() -> None:
    running = pod("g")
    leaving, pending = pod("h", deletionTimestamp=CREATED), pod("i", phase="Pending")
    assert gateway_urls([running, leaving, pending]) == ["http://10.0.0.1:8000"]
    running["status"]["podIP"] = "fd00::1"
    assert gateway_urls([running]) == ["http://[fd00::1]:8000"]


PREFILL = Lane("default", Role.PREFILL)


def prefill_pod(name: str = "p") -> dict[str, Any]:
    notes = {ASSIGNMENT: assignment(PREFILL, 150.0)}
    return pod(name, labels={ROLE: "prefill"}, annotations=notes)


def test_a_worker_that_stands_in_for_others_belongs_where_it_did() -> None:
    pods = [prefill_pod(), pod("e", annotations={ASSIGNMENT: assignment(ENCODE, 150.0)})]
    workers = report(told("p", Role.ALL), told("e", Role.ENCODE))
    fleet = PodFleet().fleet(pods, workers, 200.0)
    stand_in = fleet.worker("p")
    assert stand_in is not None
    assert (stand_in.lane, stand_in.stands_in, stand_in.is_labelled) == (PREFILL, True, True)
    assert [worker.name for worker in fleet.stand_ins(Role.DECODE)] == ["p"]
    assert not fleet.stand_ins(Role.PREFILL), "there it is at home"
    assert fleet.ready() == {PREFILL: 1, ENCODE: 1}
    assert stand_in.for_planner().role is Role.PREFILL
    assert stand_in.redundant_since_s is None, "nobody else decodes"


def test_it_is_redundant_since_others_serve_every_stage_but_its_own() -> None:
    fleet = PodFleet()
    pods = [prefill_pod(), pod("d")]

    def since(at_s: float, *others: WorkerReport, stages: tuple[Role, ...]) -> float | None:
        heard = report(told("p", Role.ALL), *others)
        found = fleet.fleet(pods, heard, at_s, stages=stages).worker("p")
        assert found is not None
        return found.redundant_since_s

    text = (Role.PREFILL, Role.DECODE)
    starts = told("d", state=WorkerState.STARTING)
    assert since(200.0, starts, stages=text) is None
    assert since(210.0, told("d"), stages=text) == 210.0
    assert since(220.0, told("d"), stages=text) == 210.0
    assert since(230.0, starts, stages=text) is None
    assert since(240.0, told("d"), stages=(Role.ENCODE, *text)) is None, "nobody else encodes"
