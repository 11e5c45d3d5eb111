"""This file is about what a deployer tells the operator: `EPIDOTE_OPERATOR_*`, read once."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from epidote_core.errors import EpidoteError
from epidote_operator.resources.fleet_values import Defaults
from epidote_operator.spec.invalid import plain

PREFIX = "EPIDOTE_OPERATOR_"


@dataclass(frozen=True)
class Bounds:
    """What a number may be."""

    least: float
    most: float = math.inf

    def admits(self, value: Any) -> bool:
        return not isinstance(value, int | float) or self.least <= value <= self.most

    def __str__(self) -> str:
        upper = "" if self.most == math.inf else f" and at most {plain(self.most)}"
        return f"at least {plain(self.least)}{upper}"


ANY = Bounds(-math.inf)
BOUNDS = {
    "http_port": Bounds(0, 65_535),
    "lease_seconds": Bounds(1, 3600),  # it is renewed every fifth of it
    "tick_seconds": Bounds(0, 3600),
}


class InvalidSettings(EpidoteError):
    """A variable that is unknown or can't be read; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting, with its default and the reason for it."""

    namespaces: tuple[str, ...] = ()  # to watch; none: all of the cluster
    namespace: str = "epidote-system"  # our own: where the lease is
    identity: str = ""  # of this process among several; "": the host's name
    lease_name: str = "epidote-operator"
    leader_election: bool = True  # off: only where nobody starts a second one
    lease_seconds: float = 15.0  # another one takes over after this; client-go's default
    image: str = Defaults().image  # of fleets that name none
    cluster_domain: str = Defaults().cluster_domain
    http_port: int = 8080  # /metrics, /healthz; 0: none
    http_host: str = "0.0.0.0"  # probes come from the node
    webhook: bool = False  # needs the chart's certificates and Service
    tick_seconds: float = 0.0  # instead of every service's own; 0: theirs. For tests
    kuberay: bool = True  # whether we may write RayClusters; the chart says
    prometheus_url: str = ""  # of services with metrics.source Prometheus that name none
    log_level: str = "INFO"

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Defaults, changed by variables with our prefix.

        Raises:
            InvalidSettings
        """
        known = {PREFIX + field.name.upper(): field.name for field in fields(cls)}
        changes: dict[str, Any] = {}
        for variable, text in environ.items():
            if not variable.startswith(PREFIX):
                continue
            if variable not in known:
                raise InvalidSettings(
                    f"{variable}: there is no such setting; known are {', '.join(sorted(known))}"
                )
            name = known[variable]
            changes[name] = _read(variable, text, getattr(cls, name))
            if not (bounds := BOUNDS.get(name, ANY)).admits(changes[name]):
                raise InvalidSettings(f"{variable}: must be {bounds}, got {text!r}")
        return replace(cls(), **changes)

    @property
    def defaults(self) -> Defaults:
        """What manifests are made from, besides the spec."""
        return Defaults(
            image=self.image,
            operator_namespace=self.namespace,
            cluster_domain=self.cluster_domain,
        )


def _read(variable: str, text: str, default: object) -> Any:
    readers: Mapping[type, Callable[[str], Any]] = {
        bool: _boolean,
        int: int,
        float: float,
        str: str.strip,
        tuple: lambda value: tuple(filter(None, (part.strip() for part in value.split(",")))),
    }
    try:
        return readers[type(default)](text)
    except ValueError as error:
        wanted = type(default).__name__
        raise InvalidSettings(f"{variable}: must be a {wanted}, got {text!r}") from error


def _boolean(text: str) -> bool:
    """
    >>> _boolean("true")
    True
    """
    match text.strip().lower():
        case "true" | "1" | "yes":
            return True
        case "false" | "0" | "no":
            return False
        case _:
            raise ValueError(text)
