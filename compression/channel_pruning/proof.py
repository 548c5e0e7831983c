"""Cuts, and holds the result against the original in which the same units are silent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from compression.errors import ResultRejected
from compression.graph.channels import TOLERANCE, Doomed, cut, prove, rounding

Feeds = Mapping[str, Any]
HALF_TOLERANCE = 2e-2
"""Of models that compute in float16 or bfloat16."""
ROUNDINGS = 10
"""How many times the effect of rounding alone may be exceeded, where a network makes much of it."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was cut, how far the result is from the silent original, and the groups left whole for being farther."""

    doomed: Doomed
    error: float
    allowed: float
    left_whole: Mapping[str, str] = field(default_factory=dict)


def cut_and_prove(
    original: ir.Model, model: ir.Model, doomed: Doomed, feeds: Sequence[Feeds], *, widths: bool
) -> Proof:
    """Cuts `model` in place. A group whose cut does not stand the proof is left whole.

    Args:
        original: a copy of the model before the cut; stays as it is.
        model: the same, to be cut.
        doomed: what leaves.
        feeds: inputs to compare on.
        widths: as the groups were found.

    Raises:
        ResultRejected: the proof fails and no single group is to blame.
    """
    whole = model.clone()
    proof = _tried(original, model, doomed, feeds, widths)
    if proof.error <= proof.allowed:
        return proof
    left_whole = {}
    for name, units in doomed.items():
        alone = _tried(original, whole.clone(), {name: units}, feeds, widths)
        if alone.error > alone.allowed:
            left_whole[name] = (
                f"its cut fails the proof: {alone.error:.1e} where {alone.allowed:.0e} is allowed"
            )
    rest = {name: units for name, units in doomed.items() if name not in left_whole}
    if not left_whole or not rest:
        raise ResultRejected(
            f"the cut model and the original with silent units differ by {proof.error:.1e}, "
            f"{proof.allowed:.0e} is allowed",
            hint="exclude layers, or choose another sparsity",
        )
    _become(model, whole)
    again = _tried(original, model, rest, feeds, widths)
    if again.error > again.allowed:
        raise ResultRejected(f"the cut model differs from the silent original by {again.error:.1e}")
    return Proof(doomed=rest, error=again.error, allowed=again.allowed, left_whole=left_whole)


def _tried(
    original: ir.Model, model: ir.Model, doomed: Doomed, feeds: Sequence[Feeds], widths: bool
) -> Proof:
    cut(model, doomed, widths=widths)
    error = max(prove(original, model, doomed, feed, widths=widths) for feed in feeds)
    allowed = HALF_TOLERANCE if _is_half(original) else TOLERANCE
    if error > allowed:
        noise = max(rounding(original, doomed, feed, widths=widths) for feed in feeds)
        allowed = max(allowed, ROUNDINGS * noise)
    return Proof(doomed=doomed, error=error, allowed=allowed)


def _is_half(model: ir.Model) -> bool:
    halves = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
    return any(value.dtype in halves for value in model.graph.initializers.values())


def _become(model: ir.Model, other: ir.Model) -> None:
    model.graph = other.graph
