"""Zeros among weights: putting them there, counting them, and saying so."""

from collections.abc import Mapping

import numpy as np

from compression.method import LayerOutcome
from compression.weight_targets import Target

ZEROS_ONLY = "zeros only: the file is not smaller until packed, and dense kernels are not faster"


def zeroed(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A copy with zeros where the mask is True."""
    pruned = np.array(values)
    pruned[mask] = 0
    return pruned


def count_zeros(target: Target) -> tuple[int, dict[str, float]]:
    """How many there are now, and the same as figures."""
    zeros = sum(int(np.count_nonzero(piece == 0)) for piece in target.pieces())
    return zeros, {"zeros": zeros, "weights": target.size}


def merged(
    before: LayerOutcome | None, name: str, kept: str | None, numbers: Mapping[str, float]
) -> LayerOutcome:
    """The outcome of a layer with this tensor added; a recurrent layer has two."""
    zeros = numbers["zeros"] + (before.numbers.get("zeros", 0) if before else 0)
    weights = numbers["weights"] + (before.numbers.get("weights", 0) if before else 0)
    share = zeros / max(weights, 1)
    return LayerOutcome(
        layer=name,
        changed=kept is None or (before is not None and before.changed),
        note=kept or f"{zeros:,.0f} of {weights:,.0f} weights are zero",
        numbers={"zeros": zeros, "weights": weights, "sparsity": share, "density": 1 - share},
    )


def notes_on(zeros: int, total: int, outcomes: Mapping[str, LayerOutcome]) -> tuple[str, ...]:
    """Sparsity and density of all, and the layers of which nothing is left."""
    share = zeros / max(total, 1)
    counts = f"{zeros:,} of {total:,} weights are zero: sparsity {share:.4f}, density {1 - share:.4f}"
    emptied = [name for name, outcome in outcomes.items() if outcome.numbers.get("sparsity") == 1.0]
    if not emptied:
        return counts, ZEROS_ONLY
    return (
        counts,
        ZEROS_ONLY,
        f"nothing is left of {', '.join(emptied)}: lower the target, or use scope 'layer'",
    )
