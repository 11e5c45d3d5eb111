"""This file is about expert skew that slows decode, and whether moving experts pays.

Who goes where is `expert_placement`'s question: it fills `ExpertMove` through `ExpertPlacer`.
Here only the worth of a move is weighed, because a move competes with adding workers.
DeepSeek's EPLB ignores the current placement; here a move pays for its bytes.
"""

from dataclasses import dataclass
from typing import Protocol

from epidote_core.expert_placement import Placement


@dataclass(frozen=True, kw_only=True)
class ExpertMove:
    """A proposed new placement, the same one for every worker of the model.

    `placement` may be empty where nobody but a simulation takes the move.
    """

    name: str
    placement: Placement = ()
    num_moved: int = 0  # slots that take another expert, on each worker
    imbalance: float  # expected busiest-to-mean ratio afterwards, >= 1
    migration_s: float  # time during which the moved layers decode slower
    slowdown: float = 0.1  # share of decode speed lost while it lasts


@dataclass(frozen=True, kw_only=True)
class ExpertLoad:
    """Observed skew: `imbalance` is the busiest device's expert load over the mean.

    `expert_time_ratio` is the share of a decode step spent in experts, the part that skew
    stretches.
    """

    imbalance: float
    expert_time_ratio: float
    proposal: ExpertMove | None = None


class ExpertPlacer(Protocol):
    """Finds a better placement for a load; the observer calls it before the planner runs."""

    def propose(self, tokens_per_expert: tuple[tuple[float, ...], ...]) -> ExpertMove | None:
        """A move for `[layer][expert]` loads, or None when nothing is worth proposing."""


def decode_stretch(imbalance: float, expert_time_ratio: float) -> float:
    """Factor on a decode step's time: the step waits for its busiest device.

    >>> decode_stretch(1.5, 0.4)
    1.2
    """
    return 1.0 + max(0.0, imbalance - 1.0) * expert_time_ratio


def told(load: ExpertLoad, move: ExpertMove) -> str:
    """What `move` changes and wins, for people.

    >>> load = ExpertLoad(imbalance=1.5, expert_time_ratio=0.4)
    >>> told(load, ExpertMove(name="m", num_moved=12, imbalance=1.0, migration_s=6.0))
    '12 expert slots of each worker move in 6 s: imbalance 1.50→1.00, decode steps 17% shorter'
    """
    before = decode_stretch(load.imbalance, load.expert_time_ratio)
    shorter = 1.0 - decode_stretch(move.imbalance, load.expert_time_ratio) / before
    return (
        f"{move.num_moved} expert slots of each worker move in {move.migration_s:.0f} s: imbalance "
        f"{load.imbalance:.2f}→{move.imbalance:.2f}, decode steps {shorter:.0%} shorter"
    )


def net_gain_s(load: ExpertLoad, *, horizon_s: float) -> float:
    """Decode seconds won over `horizon_s` by the proposal, less what the migration costs."""
    if load.proposal is None:
        return 0.0
    before = decode_stretch(load.imbalance, load.expert_time_ratio)
    after = decode_stretch(load.proposal.imbalance, load.expert_time_ratio)
    won = horizon_s * (before - after) / before
    return won - load.proposal.migration_s * load.proposal.slowdown


def worthwhile_move(
    load: ExpertLoad | None, *, horizon_s: float, cost_factor: float
) -> ExpertMove | None:
    """The proposal, if it wins more than `cost_factor` times its migration cost."""
    if load is None or load.proposal is None:
        return None
    cost = load.proposal.migration_s * load.proposal.slowdown
    if net_gain_s(load, horizon_s=horizon_s) <= (cost_factor - 1.0) * cost:
        return None
    return load.proposal
