"""Reads a graph once: which axes of which values lose positions together, and what must be mended then."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from compression.graph.channels import joining, lining
from compression.graph.channels.contents import Content, content_of, known, numbers, stored_content
from compression.graph.channels.edits import Edit
from compression.graph.channels.labels import Label, Labels, is_rigid, rigid, size_of, vectors
from compression.graph.channels.notes import Made, Restated, Site, Unreadable, describe
from compression.graph.channels.sizes import Size
from compression.graph.channels.units import Place, Units, Vector
from compression.graph.constants import Constants, stored_tensor
from compression.graph.operators import DEFAULT_DOMAINS, FLOATS, NARROW

Rule = Callable[["Reading", ir.Node], Sequence[Labels | None]]
"""Gives the axes of a node's outputs, having tied those of its inputs."""
CUTTABLE = FLOATS | NARROW | {ir.DataType.INT32, ir.DataType.BOOL}
UNNAMED = frozenset({"", "?", None})


@dataclass(eq=False)
class Reading:
    """What has been found so far. Rules work on it through its methods.

    With `widths`, normalizations do not lock the axis that they run over.
    """

    model: ir.Model
    rules: Mapping[str, Rule]
    units: Units
    widths: bool = False
    labels: dict[ir.Value, Labels | None] = field(default_factory=dict)
    shared: dict[tuple[ir.Node, int], Labels] = field(default_factory=dict)
    sources: dict[Place, Label] = field(default_factory=dict)
    contents: dict[ir.Value, Content] = field(default_factory=dict)
    constants: Constants = field(default_factory=Constants)
    edits: list[Edit] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    restated: list[Restated] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)
    summed: list[Label] = field(default_factory=list)
    heads: list[Vector] = field(default_factory=list)
    nodes: list[ir.Node] = field(default_factory=list)
    _dropped: list[Vector] = field(default_factory=list)

    @property
    def opset(self) -> int:
        return self.model.opset_imports.get("", 1)

    def read(self) -> None:
        """Reads the main graph and, inside it, all bodies."""
        for value in self.model.graph.inputs:
            self.labels[value] = self.rigid_axes(value, f"the input {value.name!r} has them")
        self.read_graph(self.model.graph, "the output {!r} gives them")

    def read_graph(self, graph: ir.Graph, reason: str) -> None:
        """Reads nodes in order; what the graph gives stays, for the reason with the value's name put in."""
        for node in graph:
            self.nodes.append(node)
            self._read_node(node)
        for value in graph.outputs:
            for label in self.axes_of(value) or ():
                lining.lock(self.units, label, reason.format(value.name))

    def axes_of(self, value: ir.Value) -> Labels | None:
        """The axes of a value; None where not even their number is known."""
        if value not in self.labels:
            self.labels[value] = self._stored_axes(value)
        return self.labels[value]

    def axes(self, node: ir.Node, index: int, rank: int | None = None) -> Labels:
        """The axes of a node's input.

        Args:
            node: the node.
            index: of the input.
            rank: what the operator says of it, where shape inference cannot tell.

        Raises:
            Unreadable: the input is absent, or its rank is unknown.
        """
        value = node.inputs[index] if index < len(node.inputs) else None
        if rank is not None and value is not None and self._input_axes(value, node, index) is None:
            lock = self.units.lock_id(f"the shape of {value.name!r} is not known")
            sizes = [Size(1, (f"{value.name}[{axis}]",)) for axis in range(rank)]
            self.labels[value] = tuple(rigid(size, lock) for size in sizes)
        found = self.optional_axes(node, index)
        if found is None:
            raise Unreadable(f"lacks input {index}")
        return found

    def optional_axes(self, node: ir.Node, index: int) -> Labels | None:
        """The same, None for an input that is absent."""
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            return None
        found = self._input_axes(value, node, index)
        if found is None:
            raise Unreadable(f"reads {value.name!r}, of which the rank is not known")
        return found

    def content(self, node: ir.Node, index: int) -> Content | None:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            return None
        return self.contents[value] if value in self.contents else stored_content(value)

    def numbers(self, node: ir.Node, index: int) -> np.ndarray | None:
        """The integers that an input holds, where all are known."""
        return numbers(self.content(node, index))

    def join(self, first: Label, second: Label) -> Label:
        return joining.join(self.units, first, second)

    def broadcast(self, first: Label, second: Label) -> Label:
        return joining.broadcast(self.units, first, second)

    def lock(self, label: Label, node: ir.Node, why: str) -> None:
        """All units of the axis stay because of what the node does to them."""
        lining.lock(self.units, label, f"{describe(node)} {why}")

    def rigid(self, size: Size, node: ir.Node, why: str = "has them at a fixed number") -> Label:
        return rigid(size, self.units.lock_id(f"{describe(node)} {why}"))

    def rigid_axes(self, value: ir.Value, reason: str) -> Labels | None:
        """Axes that cannot shrink, as inferred."""
        if value.shape is None:
            return None
        return tuple(
            rigid(self.inferred_size(value, axis), self.units.lock_id(reason))
            for axis in range(len(value.shape))
        )

    def inferred_size(self, value: ir.Value, axis: int) -> Size:
        """The size of an axis as shape inference has it, or under a name of its own."""
        shape = value.shape
        size = shape[axis] if shape is not None and axis < len(shape) else None
        if isinstance(size, int) and size >= 0:
            return Size(size)
        name = getattr(size, "value", None)
        return Size(1, (f"{value.name}[{axis}]" if name in UNNAMED else str(name),))

    def inner_axes(self, node: ir.Node, start: int, count: int) -> Labels:
        """The axes from `start` on of a node's first output: positions in space or time, which stay."""
        value = node.outputs[0]
        return tuple(
            self.rigid(self.inferred_size(value, axis), node) for axis in range(start, start + count)
        )

    def contract(self, node: ir.Node, index: int, axis: int, label: Label) -> None:
        """Notes that the node sums over this axis of this input: what it reads of a unit may be made zero."""
        if not size_of(label).known:
            self.lock(label, node, "sums over a number of them that is not known")
        rank = len(self.axes(node, index))
        self.sites.append(Site(node=node, index=index, axis=axis, rank=rank, label=label))
        self._dropped += vectors(label)

    def restate(self, node: ir.Node, axis: int, label: Label, why: str) -> None:
        """Lets the node's statistic run over the units that stay, or locks them where widths are to stay."""
        if not self.widths or not size_of(label).known:
            self.lock(label, node, why)
            return
        rank = len(self.axes(node, 0))
        self.restated.append(Restated(node=node, axis=axis, rank=rank, label=label))
        self._dropped += vectors(label)

    def makes(self, node: ir.Node, axis: int, label: Label, output: int = 0) -> None:
        """Notes that a weight makes the units on this axis of an output."""
        self.made.append(Made(node=node, output=output, axis=axis, label=label))

    def sums(self, label: Label) -> None:
        """Notes that this axis of a weight is summed over."""
        self.summed.append(label)

    def piece(self, label: Label) -> None:
        """Notes that these positions become an axis of their own: it must not run empty."""
        self.units.pieces += vectors(label)

    def drop(self, label: Label) -> None:
        """Notes that the node does without these positions, so that leaving them is no matter to it."""
        self._dropped += vectors(label)

    def mend(self, node: ir.Node, labels: Sequence[Label], edit: Callable[..., None]) -> None:
        """Notes how the node is to be mended when units of these axes leave."""
        touched = tuple(label for label in labels if not is_rigid(label))
        if touched:
            self.edits.append(Edit(node=node, labels=touched, apply=edit))

    def _input_axes(self, value: ir.Value, node: ir.Node, index: int) -> Labels | None:
        """Of a vector that several nodes share, such as a bias of zeros, each has units of its own."""
        if not _is_shared_vector(value):
            return self.axes_of(value)
        if (node, index) not in self.shared:
            found = self._stored_axes(value, node, index)
            if found is None:
                return None
            self.shared[node, index] = found
        return self.shared[node, index]

    def _stored_axes(self, value: ir.Value, user: ir.Node | None = None, index: int = 0) -> Labels | None:
        tensor = stored_tensor(value)
        if tensor is None or value.producer() is not None:
            return self.rigid_axes(value, f"{value.name!r} is computed in a way that is not known")
        if tensor.dtype not in CUTTABLE or value.is_graph_output():
            lock = self.units.lock_id(f"{value.name!r} is no weight")
            return tuple(rigid(Size(size), lock) for size in tensor.shape.numpy())
        return tuple(
            self.source(Place(value, axis, user, index), size)
            for axis, size in enumerate(tensor.shape.numpy())
        )

    def source(self, place: Place, size: int) -> Label:
        """Units that begin here: on an axis of a stored tensor, or of one that a node makes up."""
        if size < 2:
            return rigid(Size(size), self.units.lock_id(f"{place.value.name!r} is empty"))
        segments = self.units.source(place, size)
        self.sources[place] = lining.chain(self.units, [(tuple(factors),) for factors in segments])
        return self.sources[place]

    def _read_node(self, node: ir.Node) -> None:
        mark = self.units.ties
        self._dropped = []
        outputs: Sequence[Labels | None] = ()
        why = "uses them"
        rule = self._rule(node)
        if rule is None:
            why = "has no rule"
        else:
            try:
                outputs = rule(self, node)
            except (Unreadable, IndexError, ValueError) as error:
                why = error.why if isinstance(error, Unreadable) else "has inputs of unexpected shapes"
                mark, self._dropped = self.units.ties, []
        for value, labels in zip(node.outputs, outputs, strict=False):
            self.labels[value] = labels
        for value in node.outputs:
            if self.labels.get(value) is None:
                self.labels[value] = self.rigid_axes(value, f"{describe(node)} gives them")
        self._note_content(node)
        self._lock_the_rest(node, mark, why)

    def _rule(self, node: ir.Node) -> Rule | None:
        domain = "" if node.domain in DEFAULT_DOMAINS else f"{node.domain}::"
        return self.rules.get(f"{domain}{node.op_type}")

    def _note_content(self, node: ir.Node) -> None:
        if node.op_type == "Shape" and node.domain in DEFAULT_DOMAINS:
            return
        found = content_of(node, [self.content(node, index) for index in range(len(node.inputs))])
        if found is not None:
            self.contents[node.outputs[0]] = found

    def _lock_the_rest(self, node: ir.Node, mark: int, why: str) -> None:
        """An axis that the rule did not account for stays."""
        accounted = [*self._dropped, *self.units.touched_since(mark), *self._output_vectors(node)]
        same = {id(vector) for vector in accounted}
        for index, value in enumerate(node.inputs):
            for label in (self._input_axes(value, node, index) if value is not None else None) or ():
                for vector in vectors(label):
                    if id(vector) not in same and not _covered(vector, accounted):
                        self.units.lock(vector, self.units.lock_id(f"{describe(node)} {why}"))

    def _output_vectors(self, node: ir.Node) -> Iterator[Vector]:
        for value in node.outputs:
            for label in self.labels[value] or ():
                yield from vectors(label)


def shape_content(labels: Labels) -> Content:
    """What Shape would give for these axes."""
    content = known(np.zeros(len(labels), dtype=np.int64))
    content[:] = [size_of(label) for label in labels]
    return content


def _is_shared_vector(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or value.producer() is not None or len(value.uses()) < 2:
        return False
    return sum(size > 1 for size in tensor.shape.numpy()) < 2


def _covered(vector: Vector, accounted: Sequence[Vector]) -> bool:
    return bool(accounted) and bool(np.isin(vector, np.concatenate(accounted)).all())
