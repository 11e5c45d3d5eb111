"""This package is about the decision which worker does what, as one pure function.

    decided = plan(snapshot, policy, memory)

Standard library only: importable without torch, ray, kopf or numpy.
"""

from epidote_planner.decision import Plan
from epidote_planner.memory import PlannerMemory
from epidote_planner.planner import plan
from epidote_planner.policy import PlannerPolicy
from epidote_planner.snapshot import ClusterSnapshot

__all__ = ["ClusterSnapshot", "Plan", "PlannerMemory", "PlannerPolicy", "plan"]
