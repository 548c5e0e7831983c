"""quantize_mixed from end to end: forms, sensitivity, knapsack, repair, storage, proof."""

from collections.abc import Sequence

import onnx_ir as ir

from compression.errors import NotApplicable
from compression.graph import Layer
from compression.graph import layers as layers_of
from compression.method import StepContext, StepOutcome
from compression.quantization.check import weight_bytes
from compression.quantization.mixed.finding import Search
from compression.quantization.mixed.grounds import find_grounds
from compression.quantization.mixed.settings import MixedOptions
from compression.quantization.mixed.telling import tell
from compression.quantization.mixed.units import find_units
from compression.quantization.narrow.run import raise_opset

MAX_BYTES = 1_500_000_000
"""A larger model is not held in memory twice."""


def quantize_mixed(
    model: ir.Model, chosen: Sequence[Layer], options: MixedOptions, context: StepContext
) -> StepOutcome:
    """Give every weight of the chosen layers a precision of its own, so that the budgets hold at the least cost.

    Raises:
        DataMissing: there is no calibration data, or no labels where a metric has a budget.
        DataMismatch: the data does not fit the model.
        NotApplicable: no mixture holds the budgets, or the model is too large to be tried out.
    """
    size = weight_bytes(model)
    if size > MAX_BYTES:
        raise NotApplicable(
            f"the model's weights take {size / 1e9:.1f} GB: it is too large to be run hundreds of times",
            hint="quantize_weights goes through models of any size tensor by tensor",
        )
    notes = raise_opset(model, options.narrowing(1)) if "int4" in options.choices else []
    grounds = find_grounds(model, options, context)
    units = find_units(model, chosen, layers_of(model), options, context)
    if not units.items:
        reason = next(iter(units.kept.values()), "there is no float matrix")
        raise NotApplicable(f"no weight of the selected layers can be stored in fewer bits: {reason}")
    found = Search(model, units.items, options, context).find(grounds)
    return tell(chosen, units, found, options, notes=(*notes, *grounds.notes))
