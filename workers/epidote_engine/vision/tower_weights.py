"""This file is about a vision tower's weights: matrices ready to multiply, the others by name."""

from collections.abc import Mapping

from torch import Tensor

from epidote_engine.layers.linear import Linear
from epidote_engine.vision.chains import Chains

_TABLES = frozenset({"pos_embed.weight"})  # matrices that are looked up in, not multiplied with


class TowerWeights:
    """`weights` has plain names (`weights.vision_weights`).

    On a CPU matrices are copies in another layout (`layers.linear`), elsewhere the very tensors.
    `chains` are what a block computes between its products.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.chains = Chains()
        self._products: dict[str, Linear] = {}
        self._others = dict(weights)
        for name in weights:
            if weights[name].dim() > 1 and name not in _TABLES:
                prefix = name.removesuffix(".weight")
                # a convolution whose stride is its kernel's size is a product, too
                matrix = self._others.pop(name).flatten(1)
                self._products[prefix] = Linear(matrix, self._others.pop(f"{prefix}.bias", None))

    def __getitem__(self, name: str) -> Tensor:
        return self._others[name]

    def get(self, name: str) -> Tensor | None:
        """None: the tower has none of that name."""
        return self._others.get(name)

    def product(self, prefix: str, x: Tensor, *, activation: str | None = None) -> Tensor:
        """`prefix`'s projection of `x` [T, in], then the activation: [T, out]."""
        return self._products[prefix](x, activation=activation)
