"""This file is about one tick: observe, plan, act. The same for a cluster and for local mode."""

from dataclasses import dataclass

from epidote_core.modality import Modality
from epidote_core.slo import Slo
from epidote_operator.act.executor import Executor
from epidote_operator.observe.observation import Observation, Observer
from epidote_operator.spec.scaling import ScalingMode
from epidote_operator.status.fleet import Outcome
from epidote_planner import ClusterSnapshot, Plan, PlannerMemory, PlannerPolicy, plan


@dataclass(frozen=True, kw_only=True)
class Tick:
    """Everything a tick found, decided and did. `plan` None: scaling is Off."""

    now_s: float
    observation: Observation
    snapshot: ClusterSnapshot
    plan: Plan | None
    outcome: Outcome


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
    )


async def tick(
    observer: Observer,
    executor: Executor,
    policy: PlannerPolicy,
    memory: PlannerMemory | None,
    *,
    mode: ScalingMode,
    now_s: float,
) -> Tick:
    """One look, one decision, and what of it can be done.

    Advisory decides without acting. In both other modes switches under way are brought to an end,
    since a worker between two roles serves nobody.
    """
    observation = await observer.look(slos_of(policy), now_s)
    snapshot = snapshot_of(observation, now_s)
    decided = None if mode is ScalingMode.OFF else plan(snapshot, policy, memory)
    actions = decided.actions if decided is not None and mode is ScalingMode.AUTO else ()
    outcome = await executor.run(actions, observation.fleet)
    return Tick(
        now_s=now_s,
        observation=observation,
        snapshot=snapshot,
        plan=decided,
        outcome=outcome,
    )
