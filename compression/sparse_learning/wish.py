"""What a user asks of sparse learning, beside how to train."""

from dataclasses import dataclass
from typing import Literal

Penalty = Literal["l1", "l2", "group_lasso"]
Groups = Literal["channels", "filters", "inputs"]
Scope = Literal["global", "layer"]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The fields of the method, by the same names."""

    penalty: Penalty
    groups: Groups
    strength: float | None
    sparsity: float | None
    threshold: float | None
    scope: Scope
    debias_epochs: int
    keep_zeros: bool
