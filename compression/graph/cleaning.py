"""Folds what is constant and drops what is not needed, changing neither interface nor results."""

import onnx_ir as ir
from onnx_ir.passes import common

from compression.graph.absorbing import absorb_affines
from compression.graph.constants import stored_tensor
from compression.graph.duplicates import merge_duplicates
from compression.graph.folding import fold_constants
from compression.graph.gelu import fold_gelus
from compression.graph.hard_sigmoid import fold_hard_sigmoids
from compression.graph.naming import namer
from compression.graph.operators import DEFAULT_DOMAINS


def clean(model: ir.Model) -> ir.Model:
    """Cleans a model in place and returns it.

    Identity and inference-time Dropout go; constants are folded where that takes no more room;
    HardSigmoid, HardSwish and, from opset 20 on, Gelu that are spelt out become HardSigmoid and Gelu;
    BatchNormalization, and what scales or shifts channels by constants, goes into the layers before and behind it;
    stored tensors with the same content become one; what no output needs is dropped. Functions stay as they are.
    Nodes that remain keep their names.
    """
    _drop_copies(model)
    fold_constants(model)
    _drop_copies(model)
    fold_hard_sigmoids(model)
    fold_gelus(model)
    absorb_affines(model, namer(model))
    _drop_unused(model)
    merge_duplicates(model)
    return model


def _drop_copies(model: ir.Model) -> None:
    """Lets whatever reads y = Identity(x) read x, unless y is an output of a graph."""
    for graph in model.graphs():
        for node in list(graph):
            if not _is_copy(node) or node.inputs[0] is None or node.outputs[0].is_graph_output():
                continue
            ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
            graph.remove(node, safe=True)


def _is_copy(node: ir.Node) -> bool:
    if node.domain not in DEFAULT_DOMAINS:
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout" or any(out.uses() or out.is_graph_output() for out in node.outputs[1:]):
        return False
    training = node.inputs[2] if len(node.inputs) > 2 else None
    tensor = stored_tensor(training)
    return training is None or (tensor is not None and not tensor.numpy().any())


def _drop_unused(model: ir.Model) -> None:
    """Removes nodes and stored tensors that nothing reads; inputs with defaults stay."""
    overridable = {name: value for name, value in model.graph.initializers.items() if value.is_graph_input()}
    common.RemoveUnusedNodesPass()(model)
    for name, value in overridable.items():
        if name not in model.graph.initializers:
            model.graph.register_initializer(value)
