"""This file is about a step that is under way: what was planned, and its tokens to come.

With overlapped steps the host plans and enqueues step n + 1 while step n runs, and only then waits
for the tokens of n. What that takes:

| at launch                                        | when it has landed                         |
| ------------------------------------------------ | ------------------------------------------ |
| tokens count as computed; one more is in flight  | ids, logprobs, stop conditions, events     |
| a prefill for a peer is leased, its row is free  | its first token goes out                   |
|                                                  | full blocks get names; media are let go    |

A sequence that ends by a token (not by its length, which is known beforehand) is in the next step
already: that row is computed in vain and dropped. Its blocks are free at once: whatever is written
to them later on the device is enqueued later. Only other processes know no such order; therefore
reservations are announced after the step before has landed, and an abort waits for its step.
Source: the zero-overhead scheduler of NanoFlow (Zhu et al., OSDI 2025) and SGLang.
"""

from dataclasses import dataclass

from epidote_engine.drafts import Draft
from epidote_engine.plan import Plan
from epidote_engine.sampler import Sampled
from epidote_engine.sequence import Sequence


@dataclass(slots=True, eq=False)
class Launched:
    """`sampling` are the sequences that get a token, in the order of `sampled`."""

    plan: Plan
    sampling: list[Sequence]
    sampled: Sampled | Draft

    def has(self, request_id: str) -> bool:
        """Whether the request is computed in this step."""
        return any(
            seq.request_id == request_id
            for seq in (*self.plan.decodes, *(seq for seq, _, _ in self.plan.prefills))
        )

    def tokens(self) -> Sampled:
        """What was sampled; waits for the device if nobody has."""
        return self.sampled if isinstance(self.sampled, Sampled) else self.sampled.sampled()
