"""This file is about one tick: observe, plan, act. The same for a cluster and for local mode."""

from collections.abc import Mapping
from dataclasses import dataclass

from epidote_core.modality import Modality
from epidote_core.slo import Slo
from epidote_operator.act.executor import Executor
from epidote_operator.bootstrap import NOBODY, ended_workers, missing_workers
from epidote_operator.observe.observation import Observation, Observer
from epidote_operator.spec.scaling import ScalingMode
from epidote_operator.status.fleet import Outcome
from epidote_planner import ClusterSnapshot, Plan, PlannerMemory, PlannerPolicy, plan
from epidote_planner.decision import Action, AddWorkers
from epidote_planner.lane import Lane


@dataclass(frozen=True, kw_only=True)
class Tick:
    """Everything a tick found, decided and did. `plan` None: scaling is Off."""

    now_s: float
    observation: Observation
    snapshot: ClusterSnapshot
    plan: Plan | None
    outcome: Outcome
    minimum: tuple[AddWorkers, ...] = ()  # started without asking the planner


def slos_of(policy: PlannerPolicy) -> dict[Modality, Slo]:
    """The targets of every modality that the service takes."""
    served = {modality for group in policy.groups for modality in group.modalities}
    return {modality: policy.slo_for(modality) for modality in Modality if modality in served}


def snapshot_of(observation: Observation, now_s: float) -> ClusterSnapshot:
    """The planner's view. Of a fleet that nobody can tell about, nothing is decided."""
    traffic = observation.traffic
    return ClusterSnapshot(
        now_s=now_s,
        workers=tuple(worker.for_planner() for worker in observation.fleet.workers),
        traffic=traffic.arrivals,
        traffic_at_s=traffic.at_s if observation.fleet.is_known else None,
        roles=dict(observation.signals),
        attainment=traffic.attainment,
        cache=traffic.cache,
        experts=observation.experts,
    )


async def tick(
    observer: Observer,
    executor: Executor,
    policy: PlannerPolicy,
    memory: PlannerMemory | None,
    *,
    mode: ScalingMode,
    now_s: float,
    keeps_workers: bool = True,
    kept: Mapping[Lane, int] = NOBODY,
    clears_ended: bool = True,
) -> Tick:
    """One look, one decision, and what of it can be done.

    Advisory and Off only replace who is missing (of the minima, and of `kept`), take away who ended
    (`clears_ended`), and bring switches under way to an end, since a worker between two roles
    serves nobody. `keeps_workers` False: nobody is replaced.
    """
    observation = await observer.look(slos_of(policy), now_s)
    snapshot = snapshot_of(observation, now_s)
    decided = None if mode is ScalingMode.OFF else plan(snapshot, policy, memory)
    follows = mode is ScalingMode.AUTO
    minimum: tuple[AddWorkers, ...] = ()
    if keeps_workers:
        minimum = missing_workers(observation.fleet, policy, decided, kept, follows=follows)
    actions: tuple[Action, ...] = minimum
    if decided is not None and follows:
        actions = (*decided.actions, *actions)
    elif clears_ended:
        actions = (*ended_workers(observation.fleet, policy.damping), *actions)
    outcome = await executor.run(actions, observation.fleet)
    return Tick(
        now_s=now_s,
        observation=observation,
        snapshot=snapshot,
        plan=decided,
        outcome=outcome,
        minimum=minimum,
    )
