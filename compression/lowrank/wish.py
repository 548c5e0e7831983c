"""What a user asks of a factorization."""

from dataclasses import dataclass
from typing import Literal

from compression.lowrank.factors import Form

Forms = Literal["auto", "svd", "tucker", "spatial", "cp"]
Whiten = Literal["auto", "activations", "none"]
GRADIENT_BATCH = 8
"""Samples that are differentiated at a time."""
_GRADIENT_MACS = 10**12
_FEWEST = 64


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The parameters of factorize, as its fields describe them."""

    form: Forms
    ratio: float | None
    energy: float | None
    vbmf: bool
    macs_ratio: float | None
    max_macs: int | None
    whiten: Whiten
    correct_biases: bool
    weigh_outputs: bool
    max_samples: int
    round_to: int

    def forms(self, possible: tuple[Form, ...]) -> tuple[Form, ...]:
        """The forms to try of those that a layer has; what it does not have becomes the nearest."""
        if self.form != "auto":
            nearest: Form = "tucker" if "tucker" in possible else "svd"
            return (self.form,) if self.form in possible else (nearest,)
        if self.vbmf:
            return ("tucker",) if "tucker" in possible else ("svd",)
        return tuple(form for form in possible if form in ("tucker", "spatial")) or ("svd",)

    @property
    def has_budget(self) -> bool:
        return self.macs_ratio is not None or self.max_macs is not None


def gradient_samples(macs: int | None, most: int) -> int:
    """Samples to differentiate of a model with so many multiply-accumulates, which take three times as many each.

    Large ones get fewer: most of their layers give many rows for each.
    """
    return min(most, max(_GRADIENT_MACS // (3 * macs), _FEWEST)) if macs else most
