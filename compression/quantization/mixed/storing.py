"""Writes a mixture of precisions into a copy of a model."""

from collections.abc import Sequence

import onnx_ir as ir

from compression.quantization.mixed.forms import Packed
from compression.quantization.mixed.settings import KEPT, Mixture
from compression.quantization.mixed.units import Unit
from compression.quantization.narrow.placing import place
from compression.quantization.narrow.planning import Item
from compression.quantization.storage import Names


def build(
    model: ir.Model, units: Sequence[Unit], mixture: Mixture, *, accuracy: int | None = None
) -> ir.Model:
    """A copy in which every weight has the form that the mixture gives it.

    All fold into floats at load, unless `accuracy` gives the level at which MatMulNBits is to compute.
    """
    copy = with_floats_and_bytes(model, units, mixture)
    items = packed_items(units, mixture)
    if accuracy is None:
        place(copy, items, folded_only=True)
    else:
        place(copy, items, accuracy=accuracy)
    return copy


def with_floats_and_bytes(model: ir.Model, units: Sequence[Unit], mixture: Mixture) -> ir.Model:
    """A copy in which the weights of float16 and int8 have their form; those with few bits are as they were."""
    copy = model.clone()
    values = {
        value.name: value for graph in copy.graphs() for value in graph.initializers.values() if value.name
    }
    names = Names(copy)
    for unit in units:
        form = unit.forms.get(mixture.get(unit.name, KEPT))
        if form is not None and not isinstance(form, Packed):
            form.put(values[unit.name], names)
    return copy


def packed_items(units: Sequence[Unit], mixture: Mixture) -> list[Item]:
    """The weights that the mixture gives few bits."""
    chosen = (unit.forms.get(mixture.get(unit.name, KEPT)) for unit in units)
    return [form.item for form in chosen if isinstance(form, Packed)]
