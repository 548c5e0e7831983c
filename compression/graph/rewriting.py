"""What rewrites that put one node in another's place have in common."""

import onnx_ir as ir


def only_reader(node: ir.Node) -> ir.Node | None:
    """The node of the same graph that reads the first output, if nothing else does."""
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output() or uses[0].node.graph is not node.graph:
        return None
    return uses[0].node


def hand_over(old: ir.Value, new: ir.Value) -> None:
    """Lets `new` stand wherever `old` stood, under its name and with its declared type and shape."""
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    new.type, new.shape = old.type or new.type, old.shape if old.shape is not None else new.shape
    name, old.name = old.name, None
    new.name = name
