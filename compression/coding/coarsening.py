"""The lossy half of the step: rounds the weights of a model within a bound, and tells what that did."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from compression.coding.lossy import Bound, coarsest, max_error, sqnr_db
from compression.graph import Layer
from compression.graph import layers as layers_of
from compression.method import StepContext
from compression.quantization.check import OutputCheck, figures, output_check
from compression.quantization.probe import fidelity
from compression.quantization.weights import require_finite
from compression.weight_targets import Target, find_targets, put

POOR_DB = 20.0


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """What rounding did to a layer."""

    changed: bool
    note: str
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Coarsened:
    layers: dict[str, Rounded]
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


def coarsen(model: ir.Model, chosen: Sequence[Layer], bound: Bound, context: StepContext) -> Coarsened:
    """Round the matrices and kernels of the chosen layers in place.

    Raises:
        NotApplicable: a weight holds NaN or infinity; `where` names it.
    """
    check = output_check(model, context, POOR_DB)
    targets, kept = find_targets(chosen, layers_of(model))
    found = {name: Rounded(changed=False, note=reason) for name, reason in kept.items()}
    for index, target in enumerate(targets):
        context.report(0.4 * index / len(targets), f"rounding {target.value.name}")
        result = _round(target, bound)
        for layer in target.layers:
            found.setdefault(layer.name, result)
    context.report(0.45, "comparing the outputs with the original's")
    notes, details = _judged(check, model)
    return Coarsened(layers=found, notes=notes, details=details)


def _round(target: Target, bound: Bound) -> Rounded:
    weights = target.tensor.numpy()
    require_finite(target.value.name or "", weights)
    grid = coarsest(weights, bound)
    if grid is None:
        return Rounded(
            changed=False, note="kept as it is: the bound leaves more than 16 bits, or all weights are 0"
        )
    rounded = grid.rounded(weights)
    numbers = {
        "step": float(grid.step),
        "entropy_bits": grid.bits(weights),
        "max_error": max_error(weights, rounded),
    }
    reached = sqnr_db(weights, rounded)
    if reached != float("inf"):
        numbers["sqnr_db"] = reached
    put(target, grid.rounded)
    return Rounded(changed=True, note=f"rounded to multiples of {float(grid.step):.4g}", numbers=numbers)


def _judged(check: OutputCheck, model: ir.Model) -> tuple[tuple[str, ...], dict[str, Any]]:
    if check.probe is None:
        return (check.reason,), {}
    found = fidelity(check.probe, model, check.context)
    details = {"inputs": check.probe.source, "outputs": figures(found)}
    if not found.comparable or found.sqnr_db >= POOR_DB:
        return (), details
    note = (
        f"output {found.output!r} reaches {found.sqnr_db:.1f} dB only: a tighter bound would bring it nearer"
    )
    return (note,), details
