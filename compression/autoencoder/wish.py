"""What a user asks of an autoencoder, beside how to train it."""

from dataclasses import dataclass
from typing import Literal

from compression.autoencoder.layout import Unit

Sparsity = Literal["topk", "l1", "kl"]
DEFAULT_WIDTH = 2
"""Units of a code, in features."""
DEFAULT_SHARE = 0.05
"""Of the units that topk keeps."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The fields of the method, by the same names."""

    array: str | None
    layer: str | None
    unit: Unit
    sparsity: Sparsity
    hidden: int | None
    active: int | None
    weight: float
    target: float
    tied: bool
    held_out: float

    def units(self, features: int) -> int:
        """How long a code is."""
        return self.hidden or DEFAULT_WIDTH * features

    def kept(self, units: int) -> int | None:
        """How many entries of a code stay; None for all."""
        if self.sparsity != "topk":
            return None
        return self.active or max(1, round(DEFAULT_SHARE * units))
