"""How much each unit of a group matters, told from its weights alone."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression.graph.channels import Group, Slot
from compression.graph.constants import release

Scores = NDArray[np.float64]
"""Of shape [size of the group]; the larger, the more a unit matters."""

NORMALIZATIONS = frozenset(
    {
        "BatchNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "LayerNormalization",
        "RMSNormalization",
    }
)


def unit_rows(slot: Slot) -> NDArray[np.float64]:
    """The weights of each unit, of shape [size, n]."""
    tensor = slot.value.const_value
    if tensor is None:
        raise ValueError(f"{slot.value.name} holds no tensor")
    moved = np.moveaxis(tensor.numpy(), slot.axis, 0)
    rows: NDArray[np.float64] = (
        moved[slot.indices.reshape(-1)].reshape(len(slot.indices), -1).astype(np.float64)
    )
    release(tensor)
    return rows


def magnitude(group: Group, norm: Callable[[NDArray[np.float64]], Scores]) -> Scores:
    """A norm of the weights that make each unit and of those that read it (Fang et al. 2023, arXiv:2301.12900), each
    relative to the mean of its tensor, so that tensors count alike and groups can be compared; averaged over them."""
    return relative_mean([norm(unit_rows(slot)) for slot in (*group.producers, *group.consumers)], group.size)


def redundancy(group: Group) -> Scores:
    """`distance_to_others` of the weights that make each unit, relative to the mean of its tensor, averaged."""
    return relative_mean([distance_to_others(unit_rows(slot)) for slot in group.producers], group.size)


def paths(group: Group) -> Scores:
    """sum |w| of what makes a unit times sum |w| of what reads it, each relative to its mean: the sum over all
    paths through the unit of their weights' product (Neyshabur et al. 2015, arXiv:1506.02617, the path norm). It is 0
    where pruning left a unit nothing that reaches it, or nobody who listens."""
    incoming, outgoing = (
        relative_mean([l1(unit_rows(slot)) for slot in slots], group.size)
        for slots in (group.producers, group.consumers)
    )
    product: Scores = incoming * outgoing
    return product


def l1(rows: NDArray[np.float64]) -> Scores:
    """sum |w| (Li et al. 2017, arXiv:1608.08710)."""
    found: Scores = np.abs(rows).sum(axis=1)
    return found


def l2(rows: NDArray[np.float64]) -> Scores:
    """sqrt(sum w^2)."""
    found: Scores = np.sqrt(np.square(rows).sum(axis=1))
    return found


def distance_to_others(rows: NDArray[np.float64]) -> Scores:
    """The sum of Euclidean distances to all other units: the nearest to the geometric median can best be replaced
    by the rest (He et al. 2019, arXiv:1811.00250, equation 4)."""
    squares = np.square(rows).sum(axis=1)
    found = np.empty(len(rows))
    step = max((1 << 24) // max(len(rows), 1), 1)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        distances = squares[part, None] + squares[None] - 2 * (rows[part] @ rows.T)
        found[part] = np.sqrt(np.maximum(distances, 0)).sum(axis=1)
    return found


def normalization_scale(group: Group) -> Scores | None:
    """|gamma| of the normalization behind the units (Liu et al. 2017, arXiv:1708.06519); None where there is none."""
    found = [np.abs(unit_rows(slot)).sum(axis=1) for slot in group.others if _is_scale(slot.value)]
    return relative_mean(found, group.size) if found else None


def at_random(group: Group, seed: int) -> Scores:
    """Uniform in 0..1, the same for the same seed and group."""
    return np.random.default_rng([seed, *group.id.encode()]).random(group.size)


def relative_mean(parts: Sequence[Scores], size: int) -> Scores:
    """The mean of the parts, each divided by its own mean; ones where nothing tells units apart.

    A part with infinity in it, as masks have, tells nothing.
    """
    known = [part / part.mean() for part in parts if 0 < part.mean() < np.inf]
    return np.mean(known, axis=0) if known else np.ones(size)


def _is_scale(value: ir.Value) -> bool:
    return any(use.idx == 1 and use.node.op_type in NORMALIZATIONS for use in value.uses())


BY_WEIGHTS: Mapping[str, Callable[[Group], Scores]] = {
    "l1": partial(magnitude, norm=l1),
    "l2": partial(magnitude, norm=l2),
    "geometric_median": redundancy,
    "paths": paths,
}
