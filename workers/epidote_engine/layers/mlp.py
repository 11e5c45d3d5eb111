"""This file is about what a decoder layer does after attention: one SwiGLU, or a few of many.

Sources: SwiGLU: Shazeer, 2020; Sparsely-Gated Mixture-of-Experts, Shazeer et al., ICLR 2017.
"""

from dataclasses import dataclass

from torch import Tensor

from epidote_engine.layers.linear import Linear
from epidote_kernels import ops


@dataclass(slots=True, eq=False)
class Mlp:
    """The dense block; `gate_up` is fused, the gate's rows first."""

    gate_up: Linear
    down: Linear

    def __call__(self, x: Tensor, live: Tensor | None = None) -> Tensor:
        """x [T, hidden] → [T, hidden]; `live` is of no interest here."""
        return self.down(ops.silu_mul(self.gate_up(x)))


@dataclass(slots=True, eq=False)
class Experts:
    """Experts of one layer, all of them on this device; subclasses have some, or slices.

    router    hidden → one logit per expert
    gate_up   [E, 2·I, hidden], the gate's rows first;  down  [E, hidden, I]
    tokens    [E] int64: how many tokens each expert has computed; None: not counted
    scales    of gate_up [E, 2·I] and of down [E, hidden] where both hold 8-bit codes, else None
    """

    router: Linear
    gate_up: Tensor
    down: Tensor
    per_token: int
    renormalises: bool
    tokens: Tensor | None = None
    scales: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor, live: Tensor | None = None) -> Tensor:
        """x [T, hidden] → [T, hidden]; `live` [T] int64 is 0 for padding, which isn't counted."""
        weights, experts = self.routed(x, live)
        return ops.fused_moe(x, self.gate_up, self.down, weights, experts, scales=self.scales)

    def routed(self, x: Tensor, live: Tensor | None) -> tuple[Tensor, Tensor]:
        """(weights, experts) of each token, each [T, k], counted."""
        weights, experts = ops.moe_route(
            self.router(x), self.per_token, renormalise=self.renormalises
        )
        if self.tokens is not None and live is not None:
            # on the device, so that nothing waits and a CUDA graph counts as well
            counted = live.unsqueeze(1).expand(experts.shape).reshape(-1)
            self.tokens.scatter_add_(0, experts.flatten().long(), counted)
        return weights, experts
