"""This file is about what every class of requests has: a name, a style, who asks, a prefix."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from epidote_loadgen.records import PlannedRequest, RequestAttributes, Slot
from epidote_loadgen.workload.body import BodyStyle, Message
from epidote_loadgen.workload.shared_prefix import SharedPrefix


class Maker(Protocol):
    """Makes the requests of one class."""

    def request(self, slot: Slot) -> PlannedRequest:
        """A pure function of the maker and `slot.item`."""
        ...


@dataclass(frozen=True, kw_only=True)
class ClassTraits:
    """`tenants` are drawn by weight; with `tenant_header` the server is told which."""

    name: str
    seed: int
    style: BodyStyle
    category: str = ""
    tenants: Mapping[str, float] = field(default_factory=dict)
    tenant_header: str = ""
    prefix: SharedPrefix | None = None

    def rng(self, item: int, purpose: str) -> Random:
        """Chance for one item; purposes have their own, so that mixes do not disturb each other."""
        return Random(f"{self.seed}/{self.name}/{item}/{purpose}")

    def tenant(self, item: int) -> str:
        if not self.tenants:
            return ""
        names = list(self.tenants)
        cumulative = list(itertools.accumulate(self.tenants.values()))
        return self.rng(item, "tenant").choices(names, cum_weights=cumulative)[0]

    def drawn_prefix(self, item: int) -> tuple[str, str]:
        """(id, text); both "" without a shared prefix."""
        return self.prefix.draw(self.rng(item, "prefix")) if self.prefix else ("", "")

    def planned(
        self,
        slot: Slot,
        prompt: Sequence[Message] | str | list[int],
        attributes: RequestAttributes,
        *,
        max_tokens: int,
        exact: bool = False,
        expected_answer: str | None = None,
    ) -> PlannedRequest:
        """The request with this class's body style and headers."""
        headers: tuple[tuple[str, str], ...] = ()
        if self.tenant_header and attributes.tenant:
            headers = ((self.tenant_header, attributes.tenant),)
        return PlannedRequest(
            slot=slot,
            body=self.style.body(prompt, max_tokens=max_tokens, exact=exact),
            attributes=attributes,
            path=self.style.api.path,
            headers=headers,
            expected_answer=expected_answer,
        )


def with_system(prefix: str, messages: Sequence[Message]) -> list[Message]:
    """The messages after a system prompt; without one where the prefix is empty."""
    if not prefix:
        return list(messages)
    return [{"role": "system", "content": prefix}, *messages]
