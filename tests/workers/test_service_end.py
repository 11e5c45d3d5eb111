"""A service that stops lets requests end, for a while."""

from epidote_core.roles import Role, WorkerState
from epidote_core.worker_view import WorkerLoad, WorkerView
from epidote_workers.fleet_view import FleetView, Wish
from epidote_workers.local import WORK_S, wait_for_work


class Service:
    """A pretend fleet on a pretend clock; its decoder has work until `ends_s`."""

    def __init__(self, ends_s: float) -> None:
        self.now_s, self._ends_s = 0.0, ends_s
        self.num_looks = 0

    def look(self) -> FleetView:
        self.num_looks += 1
        load = WorkerLoad(num_running=int(self.now_s < self._ends_s))
        workers = tuple(
            WorkerView(
                worker_id=name, role=Role.ALL, state=WorkerState.ROUTABLE, epoch=1,
                address="", load=load if name == "b" else WorkerLoad(),
            )
            for name in "ab"
        )  # fmt: skip
        return FleetView(version=1, workers=workers, wish=Wish(shape={Role.ALL: 2}, num_workers=2))

    def sleep(self, delay_s: float) -> None:
        self.now_s += delay_s

    def end(self) -> float:
        wait_for_work(self.look, clock=lambda: self.now_s, sleep=self.sleep)
        return self.now_s


def test_an_idle_service_ends_at_once() -> None:
    service = Service(ends_s=0.0)
    assert service.end() == 0.0
    assert service.num_looks == 1


def test_requests_under_way_are_waited_for() -> None:
    assert 3.0 <= Service(ends_s=3.0).end() < 4.0


def test_endless_requests_are_not() -> None:
    assert WORK_S <= Service(ends_s=1e9).end() < WORK_S + 1.0
