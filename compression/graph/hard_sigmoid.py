"""Writes clip(x + a, 0, b) / b, as exporters spell it out, as the one node HardSigmoid(x).

HardSigmoid(x) = clip(alpha x + beta, 0, 1) with alpha = 1 / b and beta = a / b. x * clip(x + 3, 0, 6) / 6 is HardSwish
(Howard et al. 2019, arXiv:1905.02244, section 5.2), which becomes x * HardSigmoid(x): two passes over the tensor in
place of four.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from compression.graph.constants import stored_number, stored_tensor
from compression.graph.operators import is_operator
from compression.graph.rewriting import hand_over


def fold_hard_sigmoids(model: ir.Model) -> None:
    """Folds wherever nothing else reads the values in between, in place; float32 only."""
    for graph in model.graphs():
        for node in list(graph):
            found = _Match.of(node)
            if found is not None:
                found.rewrite()


class _Match:
    """Add, Clip, and a division by the upper bound: right behind, or behind a product with x."""

    def __init__(self, nodes: tuple[ir.Node, ...], x: ir.Value, shift: float, top: float) -> None:
        self.nodes, self.x, self.shift, self.top = nodes, x, shift, top

    @classmethod
    def of(cls, add: ir.Node) -> "_Match | None":
        """The match that begins at this node."""
        pair = _operands(add, "Add")
        clip = _reader(add, "Clip")
        if pair is None or clip is None or clip.inputs[0] is not add.outputs[0]:
            return None
        bounds = _bounds(clip)
        if bounds is None or bounds[0] != 0 or not bounds[1] > 0 or pair[0].dtype != ir.DataType.FLOAT:
            return None
        (x, shift), top = pair, bounds[1]
        last = next(_readers(clip), None)
        if last is None or len(clip.outputs[0].uses()) != 1:
            return None
        if is_operator(last, "Mul") and x in last.inputs and x is not clip.outputs[0]:
            divided = next(_readers(last), None)
            if divided is not None and len(last.outputs[0].uses()) == 1 and _divides(divided, last, top):
                return cls((add, clip, last, divided), x, shift, top)
            return None
        return cls((add, clip, last), x, shift, top) if _divides(last, clip, top) else None

    def rewrite(self) -> None:
        """Put HardSigmoid where the Add was; the last node's output keeps its name."""
        first, last = self.nodes[0], self.nodes[-1]
        graph = first.graph
        if graph is None:
            raise ValueError(f"{first.name} stands in no graph")
        numbers = {"alpha": 1 / self.top, "beta": self.shift / self.top}
        sigmoid = ir.node("HardSigmoid", [self.x], numbers, name=first.name)
        made, old = sigmoid.outputs[0], last.outputs[0]
        made.type, made.shape = self.x.type, self.x.shape
        graph.insert_after(first, sigmoid)
        if len(self.nodes) > 3:
            made.name = first.outputs[0].name
            first.outputs[0].name = None
            product = ir.node("Mul", [self.x, made], name=self.nodes[2].name)
            graph.insert_after(last, product)
            made = product.outputs[0]
        hand_over(old, made)
        graph.remove(reversed(self.nodes), safe=True)


def _readers(node: ir.Node) -> Iterator[ir.Node]:
    """Those in the same graph; none for an output of the graph."""
    if not node.outputs[0].is_graph_output():
        yield from (use.node for use in node.outputs[0].uses() if use.node.graph is node.graph)


def _reader(node: ir.Node, kind: str) -> ir.Node | None:
    """The only reader, if it is of this kind."""
    found = list(_readers(node))
    only = len(found) == 1 == len(node.outputs[0].uses())
    return found[0] if only and is_operator(found[0], kind) else None


def _operands(node: ir.Node, kind: str) -> tuple[ir.Value, float] | None:
    """The tensor and the number that a node of two inputs takes."""
    if not is_operator(node, kind) or len(node.inputs) != 2:
        return None
    for x, other in (node.inputs, node.inputs[::-1]):
        number = stored_number(other, x)
        if x is not None and number is not None and stored_tensor(x) is None:
            return x, number
    return None


def _divides(node: ir.Node, before: ir.Node, top: float) -> bool:
    """Whether the node divides what `before` gives by `top`."""
    pair = _operands(node, node.op_type) if is_operator(node, "Div", "Mul") else None
    if pair is None or pair[0] is not before.outputs[0]:
        return False
    if node.op_type == "Div":
        return node.inputs[0] is before.outputs[0] and pair[1] == top
    return bool(np.isclose(pair[1] * top, 1, rtol=1e-6))


def _bounds(clip: ir.Node) -> tuple[float, float] | None:
    """Both bounds of a Clip, where both are constant."""
    if len(clip.inputs) == 1:
        low, high = (clip.attributes.get(name) for name in ("min", "max"))
        return None if low is None or high is None else (low.as_float(), high.as_float())
    limits = [stored_number(value) for value in clip.inputs[1:3]]
    if len(limits) != 2 or limits[0] is None or limits[1] is None:
        return None
    return limits[0], limits[1]
