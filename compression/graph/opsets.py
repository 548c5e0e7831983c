"""Raises a model's operator set, node by node and in place: bodies too, names kept, no tensor read."""

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from compression.errors import NotApplicable
from compression.graph.adapters import MAX_VERSION, Adapter
from compression.graph.naming import all_graphs, namer
from compression.graph.operators import DEFAULT_DOMAINS
from compression.graph.shapes import infer_shapes


def upgrade_opset(model: ir.Model, at_least: int) -> ir.Model:
    """Brings a model to opset `at_least`; one that is there already stays as it is.

    The model is changed in place and returned. After an error it must not be used any more.

    Raises:
        NotApplicable: an operator cannot say in that version what it meant; the message names it.
    """
    version = model.opset_imports.get("", at_least)
    if version >= at_least:
        return model
    if at_least > MAX_VERSION:
        raise NotApplicable(
            f"opset {at_least} is newer than {MAX_VERSION}, up to which operators are converted"
        )
    if model.functions:
        raise NotApplicable(
            "the model has functions of another operator set, which are not converted",
            hint="export the model again without functions",
        )
    was_valid = _problem(model) is None
    infer_shapes(model)
    adapter = Adapter(namer(model))
    for target in range(version + 1, at_least + 1):
        for graph in list(all_graphs(model)):
            for node in list(graph):
                if node.domain in DEFAULT_DOMAINS:
                    adapter.adapt(node, target)
    model.opset_imports[""] = at_least
    problem = _problem(model) if was_valid else None
    if problem is not None:
        raise NotApplicable(f"the model cannot be brought to opset {at_least}: {problem}")
    return model


def _problem(model: ir.Model) -> str | None:
    """What onnx's own checker says against the model; None where it has nothing to say."""
    try:
        common.CheckerPass(full_check=False)(model)
    except (ir.passes.PassError, onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        return str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    return None
