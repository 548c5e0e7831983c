"""Writes narrowed weights into a model, each in the form the table gives it."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from compression.quantization.narrow.folded import store_folded
from compression.quantization.narrow.input_scaling import divide_inputs
from compression.quantization.narrow.kernels import ACCURACY, store_in_kernels, store_standard
from compression.quantization.narrow.planning import Item
from compression.quantization.narrow.settings import SHIFT_OPSET, Storage
from compression.quantization.narrow.table import form_for
from compression.quantization.narrow.uses import uses_of
from compression.quantization.storage import Names

_SMALLEST_HALF = 2.0**-14
"""Below it float16 loses digits, and a scale with it."""


def choose_forms(items: Sequence[Item], wanted: Storage, *, opset: int) -> None:
    """Settle the form of every narrowed weight, with the reason where it is not the one wanted."""
    for item in items:
        if item.narrowed is None:
            continue
        item.form, item.form_note = _form(item, wanted, opset)


def place(
    model: ir.Model, items: Sequence[Item], *, folded_only: bool = False, accuracy: int = ACCURACY
) -> None:
    """Replace the weights in this model, which may be a clone of the one they were found in.

    A weight inside a function is found by identity, so that the model itself has to be given then.
    """
    values = {
        value.name: value for graph in model.graphs() for value in graph.initializers.values() if value.name
    }
    names = Names(model)
    done = [item for item in items if item.narrowed is not None]
    if not folded_only:
        _scale_inputs(
            [(item, values[item.value.name or ""]) for item in done if item.form != "folded"], names
        )
    for item in done:
        value = item.value if item.value.producer() is not None else values[item.value.name or ""]
        narrowed = item.narrowed
        if narrowed is None:
            continue
        if folded_only or item.form == "folded":
            store_folded(value, narrowed, names, opset=model.opset_imports.get("", 0))
        elif item.form == "dequantize_linear":
            store_standard(model, value, narrowed, names)
        else:
            store_in_kernels(model, value, narrowed, names, accuracy=accuracy)


def _form(item: Item, wanted: Storage, opset: int) -> tuple[Storage, str]:
    if item.value.producer() is not None:
        return "folded", "no MatMulNBits: its weight stands inside a function"
    narrowed = item.narrowed
    if narrowed is None:
        return "folded", ""
    if narrowed.stored_bits != narrowed.scheme.bits:
        return "folded", f"a byte for each code, since the operator set stays below {SHIFT_OPSET}"
    dtype = item.tensor.dtype
    if dtype == ir.DataType.FLOAT16 and float(np.abs(narrowed.scale).min()) < _SMALLEST_HALF:
        return "folded", "no MatMulNBits: its scales are too small for float16"
    uses = uses_of(item.value)
    scaled = narrowed.input_scales is not None
    if scaled and uses is not None and any(use.kind == "gather" for use in uses):
        return "folded", "no MatMulNBits: a gather reads the weight too, whose rows are scaled"
    return form_for(wanted, narrowed.scheme, item.layout, uses, dtype=dtype, opset=opset)


def _scale_inputs(items: Sequence[tuple[Item, ir.Value]], names: Names) -> None:
    """Divide the inputs of kernels by AWQ's scales, once for all layers that read the same input."""
    groups: dict[tuple[int, bytes], tuple[ir.Value, list[ir.Node], np.ndarray]] = {}
    for item, value in items:
        scales = item.narrowed.input_scales if item.narrowed else None
        if scales is None:
            continue
        for use in uses_of(value) or ():
            given = use.node.inputs[0]
            if given is not None:
                group = groups.setdefault((id(given), scales.tobytes()), (given, [], scales))
                group[1].append(use.node)
    for given, readers, scales in groups.values():
        divide_inputs(given, readers, scales, names)
