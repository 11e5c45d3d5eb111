"""This file is about the fleet of a local `epidote serve`: its gateway's word is all there is."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from epidote_core.roles import Role, WorkerState
from epidote_operator.observe.gateway_client import FleetReport, WorkerReport
from epidote_operator.status.fleet import Fleet, FleetWorker, SwitchIntent
from epidote_planner.lane import DEFAULT_GROUP, Lane


@dataclass
class LocalFleet:
    """Remembers since when workers are what they are; the gateway does not tell.

    And where one belongs that serves every stage, since others are missing: in its role before.
    """

    _since: dict[str, tuple[object, float]] = field(default_factory=dict)
    _homes: dict[str, Lane] = field(default_factory=dict)

    def fleet(self, report: FleetReport, intents: Mapping[str, SwitchIntent]) -> Fleet:
        """The fleet at the report's time."""
        known = {worker.worker_id for worker in report.workers}
        self._since = {name: kept for name, kept in self._since.items() if name in known}
        self._homes = {name: home for name, home in self._homes.items() if name in known}
        return Fleet(
            at_s=report.at_s,
            workers=tuple(
                self._worker(worker, report.at_s, intents.get(worker.worker_id))
                for worker in report.workers
            ),
        )

    def _worker(
        self, report: WorkerReport, now_s: float, intent: SwitchIntent | None
    ) -> FleetWorker:
        said = lane = Lane(DEFAULT_GROUP, report.role)
        if report.role is Role.ALL:
            lane = self._homes.get(report.worker_id, said)
        else:
            self._homes[report.worker_id] = said
        what = (report.role, report.state, report.epoch)
        kept = self._since.get(report.worker_id)
        since_s = kept[1] if kept is not None and kept[0] == what else now_s
        self._since[report.worker_id] = (what, since_s)
        return FleetWorker(
            name=report.worker_id,
            worker_id=report.worker_id,
            lane=intent.source if intent is not None else lane,
            said=said,
            state=report.state,
            since_s=since_s,
            epoch=report.epoch,
            intent=intent,
            # It drains without a switch of ours: it is about to stop, or somebody else's switch.
            is_leaving=report.state is WorkerState.DRAINING and intent is None,
            num_running=report.num_running,
            num_waiting=report.num_waiting + report.num_encoding,
        )
