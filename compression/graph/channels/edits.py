"""What must be mended in a node when units leave: attributes, shapes, sizes, bounds and indices."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from compression.graph.channels.labels import Label, kept, size_of, vectors
from compression.graph.constants import stored_tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Edit:
    """Run when units of one of these axes leave."""

    node: ir.Node
    labels: tuple[Label, ...]
    apply: Callable[["Shears"], None]


class Change(NamedTuple):
    """What becomes of an element of a shape: element // divisor * factor + offset."""

    divisor: int = 1
    factor: int = 1
    offset: int = 0


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

    def shrinking(self, label: Label) -> Change:
        """From the size of an axis to what is left; a size that is not known is so many times something."""
        stays = self.kept(label)
        known = size_of(label).known
        return Change(factor=0, offset=int(stays.sum())) if known else Change(len(stays), int(stays.sum()))

    def growing(self, label: Label) -> Change:
        """From what is left back to the size that the axis had."""
        stays = self.kept(label)
        known = size_of(label).known
        return Change(factor=0, offset=len(stays)) if known else Change(int(stays.sum()), len(stays))

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

    def set_elements(self, node: ir.Node, index: int, rank: int, changes: Mapping[int, Change]) -> None:
        """Elements of a node's input that is a shape of `rank` numbers, whether it is stored or computed."""
        value = node.inputs[index]
        if value is None:
            raise ValueError(f"{node.name} has no input {index}")
        tensor = stored_tensor(value)
        if tensor is None:
            for op_type, array in _steps(rank, changes):
                self.put_before(node, index, op_type, array)
            return
        array = tensor.numpy().copy()
        for element, change in changes.items():
            array[element] = array[element] // change.divisor * change.factor + change.offset
        self.set_input(node, index, array)

    def change_output(self, node: ir.Node, rank: int, changes: Mapping[int, Change]) -> None:
        """Lets whatever reads a node's output, a shape of `rank` numbers, find these elements changed."""
        last = node
        for op_type, array in _steps(rank, changes):
            last = self.put_after(last, op_type, array)

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


def _steps(rank: int, changes: Mapping[int, Change]) -> Iterator[tuple[str, np.ndarray]]:
    """The changes as operators on the whole shape, those left out that change nothing."""
    all_changes = np.asarray([changes.get(element, Change()) for element in range(rank)], np.int64)
    for column, (op_type, neutral) in enumerate((("Div", 1), ("Mul", 1), ("Add", 0))):
        if (all_changes[:, column] != neutral).any():
            yield op_type, all_changes[:, column].copy()


def sizes_edit(node: ir.Node, index: int, rank: int, labels: Mapping[int, Label]) -> Callable[[Shears], None]:
    """Writes what is left of these axes into a node's input that is a shape of `rank` numbers."""

    def edit(shears: Shears) -> None:
        touched = {element: label for element, label in labels.items() if shears.touches(label)}
        changes = {element: shears.shrinking(label) for element, label in touched.items()}
        shears.set_elements(node, index, rank, changes)

    return edit


def shape_edit(
    node: ir.Node, index: int, asked: Sequence[int], labels: Sequence[Label]
) -> Callable[[Shears], None]:
    """Stores a shape that was computed, with what is left of these axes. What computed it goes unless it is read.

    `asked` is what the shape held: 0 for a size that is copied, -1 for one that is not known.
    """

    def edit(shears: Shears) -> None:
        sizes = np.asarray(asked, np.int64)
        for element, label in enumerate(labels):
            if sizes[element] > 0 and shears.touches(label):
                sizes[element] = shears.size(label)
        shears.set_input(node, index, sizes)

    return edit
