"""Writes x (1 + erf(x / sqrt 2)) / 2, as exporters spell it out, as the one node Gelu(x) of opset 20.

Hendrycks and Gimpel 2016, Gaussian error linear units (arXiv:1606.08415), section 2. Runtimes know the spelling too,
but not where x comes out of integers: then each of its readers has a DequantizeLinear of its own.
"""

import numpy as np
import onnx_ir as ir

from compression.graph.constants import stored_number, stored_tensor
from compression.graph.operators import is_operator
from compression.graph.rewriting import hand_over, only_reader

GELU_OPSET = 20


def spells_gelu(model: ir.Model) -> bool:
    return any(_find(node) for graph in model.graphs() for node in graph)


def fold_gelus(model: ir.Model) -> None:
    """Folds wherever the operator set has Gelu, in place; nodes that then have no reader are left behind."""
    if model.opset_imports.get("", 0) < GELU_OPSET:
        return
    for graph in model.graphs():
        for node in list(graph):
            found = _find(node)
            if found is not None:
                _rewrite(*found)


def ends_gelu(node: ir.Node) -> bool:
    """Whether this looks like the last factor of a Gelu by Erf or Tanh, which runtimes compute in one go."""
    product = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if node.op_type != "Mul" or product is None or product.op_type != "Mul":
        return False
    sums = [value.producer() for value in product.inputs if value is not None]
    inner = [
        value.producer() for item in sums if item and item.op_type == "Add" for value in item.inputs if value
    ]
    return any(item is not None and item.op_type in {"Erf", "Tanh"} for item in inner)


def _rewrite(x: ir.Value, last: ir.Node) -> None:
    graph = last.graph
    if graph is None:
        raise ValueError(f"{last.name} stands in no graph")
    gelu = ir.node("Gelu", [x], name=last.name)
    graph.insert_after(last, gelu)
    hand_over(last.outputs[0], gelu.outputs[0])
    graph.remove(last, safe=True)


def _find(erf: ir.Node) -> tuple[ir.Value, ir.Node] | None:
    """x and the last node of the spelling that has this Erf in it."""
    inner = erf.inputs[0].producer() if is_operator(erf, "Erf") and erf.inputs[0] is not None else None
    scaled = None if inner is None else _scaled(inner)
    sum_ = only_reader(erf)
    if scaled is None or sum_ is None or not np.isclose(scaled[1], np.sqrt(0.5), rtol=1e-4):
        return None
    one = _beside(sum_, erf.outputs[0])
    return (
        _follow(sum_, scaled[0])
        if is_operator(sum_, "Add") and stored_number(one, erf.outputs[0]) == 1
        else None
    )


def _follow(node: ir.Node, x: ir.Value) -> tuple[ir.Value, ir.Node] | None:
    """The node by which what this one gives has been multiplied by x and by 1/2, in whatever order."""
    factor, times_x = 1.0, False
    while (reader := only_reader(node)) is not None:
        scaled, other = _scaled(reader), _beside(reader, node.outputs[0])
        product = None if other is None or other.producer() is None else _scaled(other.producer())
        if scaled is not None and scaled[0] is node.outputs[0]:
            factor *= scaled[1]
        elif times_x or not is_operator(reader, "Mul"):
            return None
        elif other is x:
            times_x = True
        elif product is not None and product[0] is x:
            factor, times_x = factor * product[1], True
        else:
            return None
        if times_x and np.isclose(factor, 0.5):
            return x, reader
        node = reader
    return None


def _scaled(node: ir.Node | None) -> tuple[ir.Value, float] | None:
    """x and c of a node that gives c x."""
    if node is None or not is_operator(node, "Mul", "Div") or len(node.inputs) != 2:
        return None
    orders = (node.inputs, node.inputs[::-1]) if node.op_type == "Mul" else (node.inputs,)
    for x, other in orders:
        number = stored_number(other, x)
        if x is not None and number and stored_tensor(x) is None:
            return x, number if node.op_type == "Mul" else 1 / number
    return None


def _beside(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """The other of two inputs."""
    others = [item for item in node.inputs if item is not value]
    return others[0] if len(node.inputs) == 2 and len(others) == 1 else None
