"""This file is about what the register tells: to workers, to gateways, and to its next life."""

from collections.abc import Mapping
from dataclasses import dataclass

from epidote_core.roles import Role, Stage
from epidote_core.worker_view import WorkerView
from epidote_workers.assignment import resize


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the fleet should look like. `shape` is scaled to `num_workers`."""

    shape: Mapping[Role, int]
    num_workers: int
    stages: tuple[Stage, ...] = tuple(Stage)  # that the model needs somebody for
    experts: str = ""  # digest of where experts shall lie, which the register has; "": no wish
    version: int = 0  # grows with every change; the highest one known to anybody holds

    @property
    def counts(self) -> dict[Role, int]:
        return resize(self.shape, self.num_workers)


@dataclass(frozen=True, kw_only=True)
class Orders:
    """The register's answer to a worker: its role, the wish to remember, whether all ends now."""

    role: Role
    wish: Wish
    is_closing: bool = False


@dataclass(frozen=True, kw_only=True)
class FleetView:
    """The register at one version; `version` also differs after the register's restart."""

    version: int
    workers: tuple[WorkerView, ...]
    wish: Wish
