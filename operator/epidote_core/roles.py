"""This file is about what a worker can do (stages) and what it is assigned to do (roles)."""

from enum import StrEnum


class Stage(StrEnum):
    """One of the three steps of a request, in order."""

    ENCODE = "encode"
    PREFILL = "prefill"
    DECODE = "decode"


class Role(StrEnum):
    """A worker's assignment. `ALL` serves every stage: one worker is a whole engine.

    >>> Role("all").serves(Stage.PREFILL)
    True
    >>> Role.DECODE.serves(Stage.ENCODE)
    False
    """

    ENCODE = "encode"
    PREFILL = "prefill"
    DECODE = "decode"
    ALL = "all"

    def serves(self, stage: Stage) -> bool:
        """Whether the router may send `stage` to a worker of this role."""
        return self is Role.ALL or self.value == stage.value

    @property
    def needs_encoder_weights(self) -> bool:
        return self in (Role.ENCODE, Role.ALL)

    @property
    def needs_language_weights(self) -> bool:
        return self is not Role.ENCODE


class WorkerState(StrEnum):
    """Where a worker is in its life; only `ROUTABLE` workers get new requests.

    starting → routable → draining → switching → verifying → routable; `failed` is terminal.
    """

    STARTING = "starting"
    ROUTABLE = "routable"
    DRAINING = "draining"
    SWITCHING = "switching"
    VERIFYING = "verifying"
    FAILED = "failed"
