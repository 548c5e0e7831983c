"""Raises a model's operator set."""

import onnx
import onnx.version_converter
import onnx_ir as ir

from compression.errors import NotApplicable
from compression.graph.naming import all_graphs
from compression.graph.shapes import outline


def upgrade_opset(model: ir.Model, at_least: int) -> ir.Model:
    """The model at opset `at_least`, or as it is where it is there already.

    Raises:
        NotApplicable: an operator cannot be converted; the message names it.
    """
    if model.opset_imports.get("", at_least) >= at_least:
        return model
    proto = outline(model)
    try:
        converted = ir.serde.deserialize_model(onnx.version_converter.convert_version(proto, at_least))
    except Exception as error:
        raise NotApplicable(f"the model cannot be brought to opset {at_least}: {error}") from error
    tensors = {
        value.name: value.const_value for graph in all_graphs(model) for value in graph.initializers.values()
    }
    for graph in all_graphs(converted):
        for value in graph.initializers.values():
            if value.name in tensors:
                value.const_value = tensors[value.name]
    converted.meta.update(model.meta)
    return converted
