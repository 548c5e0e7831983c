"""What must be mended in a node when units leave: attributes, shapes, sizes, bounds and indices."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from compression.graph.channels.labels import Label, kept, vectors
from compression.graph.constants import stored_tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Edit:
    """Run when units of one of these axes leave."""

    node: ir.Node
    labels: tuple[Label, ...]
    apply: Callable[["Shears"], None]


@dataclass(kw_only=True, eq=False)
class Shears:
    """Knows which units stay, and changes nodes. New nodes stand beside the one that is mended."""

    alive: np.ndarray
    fresh: Callable[[str], str]
    replaced: list[ir.Value | None] = field(default_factory=list)
    """What nodes read before they were mended: to be dropped where nothing else reads it."""

    def touches(self, label: Label) -> bool:
        return any(not self.alive[vector].all() for vector in vectors(label))

    def kept(self, label: Label) -> np.ndarray:
        """Which positions of an axis stay."""
        return kept(label, self.alive)

    def size(self, label: Label) -> int:
        """The size that is left."""
        return int(self.kept(label).sum())

    def before(self, label: Label, position: int) -> int:
        """How many positions stay before this one."""
        return int(self.kept(label)[:position].sum())

    def set_attribute(self, node: ir.Node, name: str, number: int) -> None:
        node.attributes[name] = ir.AttrInt64(name, number)

    def set_input(self, node: ir.Node, index: int, array: np.ndarray | ir.TensorProtocol | None) -> None:
        """A stored tensor of the node's own as its input, or none."""
        if len(node.inputs) <= index:
            node.resize_inputs(index + 1)
        self.replaced.append(node.inputs[index])
        node.replace_input_with(index, None if array is None else self.stored(node, array, f"input{index}"))

    def stored(self, node: ir.Node, array: np.ndarray | ir.TensorProtocol, base: str) -> ir.Value:
        """A new stored tensor in the node's graph."""
        graph = node.graph
        if not isinstance(graph, ir.Graph):
            raise ValueError(f"{node.name} stands in no graph")
        tensor = ir.tensor(array) if isinstance(array, np.ndarray) else array
        tensor.name = self.fresh(f"{node.name}.{base}")
        value = ir.Value(
            name=tensor.name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        graph.register_initializer(value)
        return value

    def set_elements(self, node: ir.Node, index: int, rank: int, sizes: Mapping[int, int]) -> None:
        """Elements of a node's input that is a shape of `rank` numbers, whether it is stored or computed."""
        value = node.inputs[index]
        if value is None:
            raise ValueError(f"{node.name} has no input {index}")
        tensor = stored_tensor(value)
        if tensor is None:
            node.replace_input_with(index, self._overridden(node, value, rank, sizes))
            return
        array = tensor.numpy().copy()
        for element, size in sizes.items():
            array[element] = size
        self.set_input(node, index, array)

    def freeze(self, node: ir.Node, rank: int, sizes: Mapping[int, int]) -> None:
        """Lets whatever reads a node's output find these elements as they are given here."""
        mask, constants = _override(rank, sizes)
        self.put_after(self.put_after(node, "Mul", mask), "Add", constants)

    def put_before(
        self, node: ir.Node, index: int, op_type: str, array: np.ndarray, *, axis: int | None = None
    ) -> None:
        """Lets a node read op_type(input, array) in place of an input; `axis` is an attribute of the new node."""
        value = node.inputs[index]
        if value is None or node.graph is None:
            raise ValueError(f"{node.name} has no input {index}")
        made = self._node(node, op_type, value, array, axis)
        node.graph.insert_before(node, made)
        node.replace_input_with(index, made.outputs[0])

    def put_after(self, node: ir.Node, op_type: str, array: np.ndarray) -> ir.Node:
        """Lets whatever reads a node's first output read op_type(output, array); returns the new node."""
        output = node.outputs[0]
        if node.graph is None:
            raise ValueError(f"{node.name} stands in no graph")
        made = self._node(node, op_type, output, array, None)
        node.graph.insert_after(node, made)
        result, name = made.outputs[0], output.name
        result.shape = output.shape
        ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
        made.replace_input_with(0, output)
        output.name, result.name = result.name, name
        return made

    def _overridden(self, node: ir.Node, value: ir.Value, rank: int, sizes: Mapping[int, int]) -> ir.Value:
        """value * mask + sizes, computed before the node: these elements are constants from now on."""
        mask, constants = _override(rank, sizes)
        if node.graph is None:
            raise ValueError(f"{node.name} stands in no graph")
        product = self._node(node, "Mul", value, mask, None)
        total = self._node(node, "Add", product.outputs[0], constants, None)
        node.graph.insert_before(node, [product, total])
        return total.outputs[0]

    def _node(
        self, beside: ir.Node, op_type: str, value: ir.Value, array: np.ndarray, axis: int | None
    ) -> ir.Node:
        """A new node beside another one, not yet in its graph."""
        attributes = {} if axis is None else {"axis": axis}
        stored = self.stored(beside, array, op_type.lower())
        made = ir.node(op_type, [value, stored], attributes, name=self.fresh(f"{beside.name}.{op_type}"))
        made.outputs[0].name = self.fresh(f"{made.name}.output")
        made.outputs[0].type = value.type
        return made


def _override(rank: int, sizes: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
    mask, constants = np.ones(rank, np.int64), np.zeros(rank, np.int64)
    for element, size in sizes.items():
        mask[element], constants[element] = 0, size
    return mask, constants


def sizes_edit(node: ir.Node, index: int, rank: int, labels: Mapping[int, Label]) -> Callable[[Shears], None]:
    """Writes what is left of these axes into a node's input that is a shape of `rank` numbers."""

    def edit(shears: Shears) -> None:
        touched = {element: shears.size(label) for element, label in labels.items() if shears.touches(label)}
        shears.set_elements(node, index, rank, touched)

    return edit
