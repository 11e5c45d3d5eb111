"""This file is about closed loops: users who wait for a reply, think, and ask again."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from epidote_loadgen.records import Slot

ITEMS_PER_USER = 1 << 20  # a user's requests are neighbours, so sessions can be made of them


@dataclass(frozen=True, kw_only=True)
class ClosedLoop:
    """`num_users` users, each with one request at a time.

    A closed loop can't miss what it never asked: it slows down with the service. Use it for
    throughput at a concurrency, not for a promise about arrivals. A request's intended send is
    the end of the reply before, plus the time to think.
    """

    weights: Mapping[str, float]
    num_users: int
    think_s: float = 0.0  # mean of an exponential; 0: at once
    duration_s: float = math.inf  # no new request after it
    num_requests: int | None = None  # of all users together
    ramp_s: float = 0.0  # over which the users come in
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_users < 1:
            raise ValueError(f"users: must be >= 1, got {self.num_users}")
        if not (self.think_s >= 0.0 and self.ramp_s >= 0.0):
            raise ValueError("think and ramp times must be >= 0 s")
        if self.duration_s == math.inf and self.num_requests is None:
            raise ValueError("a closed loop needs a duration or a number of requests")
        if not self.weights or not sum(self.weights.values()) > 0.0:
            raise ValueError("a closed loop needs classes with weights")

    def expected_by_class(self) -> dict[str, float] | None:
        """How many requests of each class are to be expected; None: as many as fit."""
        if self.num_requests is None:
            return None
        total = sum(self.weights.values())
        return {name: self.num_requests * w / total for name, w in self.weights.items()}

    def first_send_s(self, user: int) -> float:
        """When the user comes in."""
        return self.ramp_s * user / self.num_users

    def requests_of(self, user: int) -> int | None:
        """The user's share of `num_requests`; None: as many as fit the duration."""
        if self.num_requests is None:
            return None
        return len(range(user, self.num_requests, self.num_users))

    def slot(self, user: int, turn: int) -> Slot:
        """The user's request number `turn`: independent of every reply."""
        names = list(self.weights)
        cumulative = list(itertools.accumulate(self.weights.values()))
        chance = Random(f"{self.seed}/{user}/{turn}/class")
        return Slot(
            index=user + turn * self.num_users,
            intended_send_s=None,
            class_name=chance.choices(names, cum_weights=cumulative)[0],
            item=user * ITEMS_PER_USER + turn,
        )

    def think(self, user: int, turn: int) -> float:
        """Seconds before request number `turn`, drawn from the seed."""
        if self.think_s == 0.0 or turn == 0:
            return 0.0
        return Random(f"{self.seed}/{user}/{turn}/think").expovariate(1.0 / self.think_s)
