"""What a user may ask of channel pruning: plain fields, read by the API."""

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Criterion = Literal[
    "l1", "l2", "geometric_median", "paths", "bn_scale", "taylor", "entropy", "stability", "random"
]
Scope = Literal["layer", "global"]

READS_DATA: frozenset[Criterion] = frozenset({"taylor", "entropy", "stability"})
NEEDS_GRADIENTS: frozenset[Criterion] = frozenset({"taylor"})


class Budget(BaseModel):
    """What may be left, as shares of the original; each that is given must be met."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    macs: float | None = Field(
        None, gt=0, lt=1, description="share of the multiply-accumulate operations that may be left"
    )
    size: float | None = Field(None, gt=0, lt=1, description="share of the weights' bytes that may be left")
    latency: float | None = Field(
        None, gt=0, lt=1, description="share of the time of one inference, measured on the job's device"
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.macs is self.size is self.latency is None:
            raise ValueError("give a share of macs, size or latency that may be left")
        return self


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The parameters of prune_channels, as its fields describe them."""

    criterion: Criterion
    sparsity: float | None
    threshold: float | None
    budget: Budget | None
    scope: Scope
    max_sparsity: float
    round_to: int
    widths: bool
    max_samples: int
