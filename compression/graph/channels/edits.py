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
        output = node.outputs[0]
        readers = list(output.uses())
        after = ir.node("Identity", [output], name=self.fresh(f"{node.name}.frozen"))
        after.outputs[0].name = self.fresh(f"{after.name}.output")
        after.outputs[0].type, after.outputs[0].shape = output.type, output.shape
        if node.graph is None:
            raise ValueError(f"{node.name} stands in no graph")
        node.graph.insert_after(node, after)
        after.replace_input_with(0, self._overridden(after, output, rank, sizes))
        for user, index in readers:
            user.replace_input_with(index, after.outputs[0])

    def _overridden(self, node: ir.Node, value: ir.Value, rank: int, sizes: Mapping[int, int]) -> ir.Value:
        """value * mask + sizes, computed before the node: these elements are constants from now on."""
        mask, constants = np.ones(rank, np.int64), np.zeros(rank, np.int64)
        for element, size in sizes.items():
            mask[element], constants[element] = 0, size
        product = self._insert(node, "Mul", value, self.stored(node, mask, "mask"))
        return self._insert(node, "Add", product, self.stored(node, constants, "sizes"))

    def _insert(self, node: ir.Node, op_type: str, *inputs: ir.Value) -> ir.Value:
        made = ir.node(op_type, list(inputs), name=self.fresh(f"{node.name}.{op_type}"))
        made.outputs[0].name = self.fresh(f"{made.name}.output")
        made.outputs[0].type = inputs[0].type
        made.outputs[0].shape = inputs[1].shape
        if node.graph is None:
            raise ValueError(f"{node.name} stands in no graph")
        node.graph.insert_before(node, made)
        return made.outputs[0]


def sizes_edit(node: ir.Node, index: int, rank: int, labels: Mapping[int, Label]) -> Callable[[Shears], None]:
    """Writes what is left of these axes into a node's input that is a shape of `rank` numbers."""

    def edit(shears: Shears) -> None:
        touched = {element: shears.size(label) for element, label in labels.items() if shears.touches(label)}
        shears.set_elements(node, index, rank, touched)

    return edit
