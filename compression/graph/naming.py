"""Names: one per node and per stored tensor, unique over the whole model and the same at every loading."""

from collections import Counter
from collections.abc import Callable, Iterator

import onnx_ir as ir


def fresh_name(model: ir.Model, base: str) -> str:
    """A value or node name that nothing in the model bears yet: `base`, or `base_1`, `base_2`, ..."""
    return _free(base, taken_names(model))


def namer(model: ir.Model) -> Callable[[str], str]:
    """`fresh_name` for many names: makes ones that nothing bears, also none it made before."""
    taken = taken_names(model)

    def fresh(base: str) -> str:
        name = _free(base, taken)
        taken.add(name)
        return name

    return fresh


def taken_names(model: ir.Model) -> set[str]:
    """Every name of a value or a node, bodies and functions included."""
    taken: set[str] = set()
    for graph in all_graphs(model):
        taken.update(value.name or "" for value in (*graph.inputs, *graph.initializers.values()))
        for node in graph:
            taken.add(node.name or "")
            taken.update(value.name or "" for value in node.outputs)
    return taken


def all_graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph, bodies, and the graphs of functions with their bodies: each once, in a fixed order."""
    seen: set[int] = set()
    waiting = [model.graph, *(function.graph for function in model.functions.values())]
    for root in waiting:
        for graph in (root, *root.subgraphs()):
            if id(graph) not in seen:
                seen.add(id(graph))
                yield graph


def name_nodes(model: ir.Model) -> None:
    """Gives a name to nodes that have none or not their own; the first bearer of a name keeps it."""
    nodes = [node for graph in all_graphs(model) for node in graph]
    taken = {node.name for node in nodes if node.name}
    borne: set[str] = set()
    numbers: Counter[str] = Counter()
    for node in nodes:
        if node.name and node.name not in borne:
            borne.add(node.name)
            continue
        if node.name:
            node.name = _free(node.name, taken)
        else:
            node.name = _free(f"{node.op_type}_{numbers[node.op_type]}", taken)
            numbers[node.op_type] += 1
        taken.add(node.name)
        borne.add(node.name)


def name_initializers(model: ir.Model) -> None:
    """Renames stored tensors of bodies that bear a name already borne elsewhere."""
    borne = {value.name for value in model.graph.inputs} | set(model.graph.initializers)
    taken: set[str] | None = None
    for graph in all_graphs(model):
        if graph is model.graph:
            continue
        for name, value in list(graph.initializers.items()):
            if name in borne and not value.is_graph_output() and not value.is_graph_input():
                taken = taken_names(model) if taken is None else taken
                value.name = _free(name, taken)
                taken.add(value.name)
            borne.add(value.name or "")


def _free(base: str, taken: set[str]) -> str:
    name, count = base, 0
    while not name or name in taken:
        count += 1
        name = f"{base}_{count}"
    return name
