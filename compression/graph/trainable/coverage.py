"""What keeps a model from being trained, told without torch: operators unknown, and gradients that end."""

from collections.abc import Iterable, Iterator, Mapping

import onnx_ir as ir

from compression.errors import NotTrainable
from compression.graph.naming import all_graphs
from compression.graph.operators import operator_key
from compression.graph.trainable.names import OPERATOR_NAMES, WITHOUT_GRADIENT
from compression.graph.trainable.roles import Role, roles
from compression.summary import Obstacle

UNKNOWN = "training does not know this operator"
NO_WEIGHTS = "the model stores no float weights that could be trained"
NO_GRADIENT = (
    "no gradient passes through this operator, and every way from the weights to an output leads here"
)


def obstacles(model: ir.Model) -> tuple[Obstacle, ...]:
    """What keeps a model from being trained; empty where nothing does.

    Branches and loops are no obstacle: gradients flow through the branch that the data chooses and through
    every pass, only not through the choice itself. What blocks is an unknown operator, a model without float
    weights, and one where every way from the weights to the outputs crosses an operator without gradient.
    """
    unknown = tuple(_unknown_operators(model))
    return unknown or tuple(_dead_ends(model))


def refuse_unknown(model: ir.Model) -> None:
    """Raises:
    NotTrainable: an operator is unknown; the message names it, its first node and how many there are.
    """
    found = next(_unknown_operators(model), None)
    if found is not None:
        raise NotTrainable(
            f"training does not know {found.operator}, of which the model has {found.count}",
            where=found.node,
            hint="methods that need no gradients still run",
        )


def _unknown_operators(model: ir.Model) -> Iterator[Obstacle]:
    nodes = [node for graph in all_graphs(model) for node in graph]
    for operator, found in _grouped(nodes).items():
        if operator not in OPERATOR_NAMES:
            yield _obstacle(operator, found, UNKNOWN)


def _dead_ends(model: ir.Model) -> Iterator[Obstacle]:
    """Follows the weights; where no output is reached, the operators at which the ways end."""
    known = roles(model)
    weights = {
        value
        for graph in all_graphs(model)
        for name, value in graph.initializers.items()
        if known.get(name) is Role.PARAMETER
    }
    if not weights:
        yield Obstacle(operator="", node="", count=0, reason=NO_WEIGHTS)
        return
    ends: list[ir.Node] = []
    reached = _reached(model.graph, weights, ends)
    if not reached.intersection(model.graph.outputs):
        for operator, found in _grouped(ends).items():
            yield _obstacle(operator, found, NO_GRADIENT)


def _reached(graph: ir.Graph, sources: set[ir.Value], ends: list[ir.Node]) -> set[ir.Value]:
    """The values that a gradient leads back from to the sources; `ends` gathers the nodes where it would not."""
    reached = set(sources)
    for node in graph:
        bodies = [attr.as_graph() for attr in node.attributes.values() if attr.type == ir.AttributeType.GRAPH]
        fed = any(value in reached for value in node.inputs if value is not None)
        inside = [_reached(body, reached | set(body.inputs if fed else ()), ends) for body in bodies]
        if bodies:
            fed = any(found.intersection(body.outputs) for found, body in zip(inside, bodies, strict=True))
        if fed and _passes(node):
            reached.update(node.outputs)
        elif fed:
            ends.append(node)
    return reached


def _passes(node: ir.Node) -> bool:
    if operator_key(node) in WITHOUT_GRADIENT:
        return False
    if node.op_type == "Cast":
        return ir.DataType(node.attributes["to"].as_int()).is_floating_point()
    return True


def _grouped(nodes: Iterable[ir.Node]) -> Mapping[str, list[ir.Node]]:
    groups: dict[str, list[ir.Node]] = {}
    for node in nodes:
        groups.setdefault(operator_key(node), []).append(node)
    return groups


def _obstacle(operator: str, nodes: list[ir.Node], reason: str) -> Obstacle:
    return Obstacle(operator=operator, node=nodes[0].name or "", count=len(nodes), reason=reason)
