"""Brings a freshly read model into the form that every step relies on."""

import logging

import onnx_ir as ir
from onnx_ir.passes import common

from compression.errors import InvalidModel
from compression.graph.naming import name_initializers, name_nodes
from compression.graph.operators import FLOATS, NARROW

MIN_WEIGHT_ELEMENTS = 2
IR_VERSION_WITH_FREE_INITIALIZERS = 4
"""Before it, every initializer had to be listed among the inputs."""

logging.getLogger("onnx_ir").setLevel(logging.ERROR)


def normalise(model: ir.Model) -> list[str]:
    """Changes the model in place and returns, as sentences, what a user should know of it."""
    _default_domain(model)
    warnings = _inline(model) + _free_weights(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=0)(model)
    name_initializers(model)
    name_nodes(model)
    return warnings


def _default_domain(model: ir.Model) -> None:
    """`ai.onnx` is another name of the default domain; onnx_ir itself rewrites it on nodes."""
    version = model.opset_imports.pop("ai.onnx", None)
    if version is not None:
        model.opset_imports.setdefault("", version)


def _inline(model: ir.Model) -> list[str]:
    """Inlines model-local functions, so that layers inside them are seen and can be changed one by one.

    Functions of another operator set than the model's stay.
    """
    model.meta["functions"] = count = len(model.functions)
    if not count or any(_differs(function, model) for function in model.functions.values()):
        return []
    try:
        common.InlinePass()(model)
    except (ir.passes.PassError, ir.passes.PreconditionError, ValueError) as error:
        raise InvalidModel(f"a function cannot be inlined: {error}") from error
    return [f"{count} functions were inlined"]


def _differs(function: ir.Function, model: ir.Model) -> bool:
    return any(
        model.opset_imports.get(domain, version) != version
        for domain, version in function.opset_imports.items()
    )


def is_weight_like(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype in FLOATS | NARROW and tensor.size >= MIN_WEIGHT_ELEMENTS


def _free_weights(model: ir.Model) -> list[str]:
    """Takes weights out of the inputs where an exporter listed them there.

    Before IR version 4 every initializer had to be listed, and onnxruntime takes them for constants: so they
    are here. Later a few among the inputs are defaults that a caller may override, and stay. All of them are
    an exporter's habit: then settings (single numbers, integers) stay, so that they can still be overridden.
    """
    graph = model.graph
    listed = [value for value in graph.inputs if value.name in graph.initializers]
    old = model.ir_version < IR_VERSION_WITH_FREE_INITIALIZERS
    if not old and len(listed) < len(graph.initializers):
        return []
    freed = [
        value
        for value in listed
        if old or (value.const_value is not None and is_weight_like(value.const_value))
    ]
    for value in freed:
        graph.inputs.remove(value)
    model.ir_version = max(model.ir_version, IR_VERSION_WITH_FREE_INITIALIZERS)
    return [f"{len(freed)} weights were also listed as inputs; they count as constants"] if freed else []
