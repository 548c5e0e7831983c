"""Tensors between what can be divided and layers that can be multiplied: the places where scales may go."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import onnx_ir as ir

from compression.equalization.carriers import Asked, lowered
from compression.equalization.parts import Left, Part
from compression.equalization.readers import channels_read, is_reader, raised
from compression.graph import Layer

_LINEAR = frozenset({"Conv", "Gemm", "MatMul", "BatchNormalization"})


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """A tensor whose channels can be divided by scales where it is made, and its readers multiplied by them."""

    name: str
    """Of the tensor."""
    channels: int
    axis: int
    """Of the tensor: 1 or -1."""
    each: int
    """Neighbours along the axis that make up one channel: more than 1 behind a Flatten."""
    lowered: tuple[Part, ...]
    raised: tuple[Part, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the nodes that change."""
        nodes = (part.node.name or "" for part in (*self.lowered, *self.raised))
        return tuple(dict.fromkeys(nodes))


@dataclass(frozen=True, kw_only=True)
class Found:
    """Groups in graph order, and by layer why what it reads cannot be scaled."""

    groups: tuple[Group, ...]
    left: Mapping[str, str]


def find_groups(model: ir.Model, layers: Sequence[Layer], chosen: Set[str], *, linear: bool) -> Found:
    """All groups of the main graph whose layers are chosen.

    Args:
        model: stays as it is.
        layers: every layer of the model.
        chosen: names of those that may change.
        linear: only groups whose scale ends in layers and BatchNormalization, as cross-layer equalization
            wants it.
    """
    groups: list[Group] = []
    left: dict[str, str] = {}
    fixed = {layer.name for layer in layers} - chosen
    for value in _read(model.graph):
        readers = [use.node for use in value.uses() if is_reader(use.node, use.idx)]
        try:
            group = _group(value, readers, linear=linear)
            _require_chosen(group, fixed)
            groups.append(group)
        except Left as reason:
            left |= {node.name or "": f"what it reads, {value.name!r}, is left: {reason}" for node in readers}
    return Found(groups=tuple(groups), left=left)


def _read(graph: ir.Graph) -> list[ir.Value]:
    """Tensors that layers read, in the order of their first reader."""
    given = (node.inputs[0] for node in graph if node.inputs)
    values = dict.fromkeys(value for value in given if value is not None and value.const_value is None)
    return [value for value in values if any(is_reader(use.node, use.idx) for use in value.uses())]


def _group(value: ir.Value, readers: Sequence[ir.Node], *, linear: bool) -> Group:
    inputs = {channels_read(node) for node in readers}
    axes = {"second" if node.op_type == "Conv" else "last" for node in readers}
    if len(inputs) != 1 or len(axes) != 1:
        raise Left("its readers take its axes for different channels")
    axis = axes.pop()
    count = inputs.pop()
    asked = Asked(
        value=value, readers=set(readers), inputs=count, axis="second" if axis == "second" else "last"
    )
    parts = lowered(asked)
    channels = {_channels(part) for part in parts}
    if len(channels) != 1 or len({(part.node, part.place) for part in parts}) != len(parts):
        raise Left("its channels come from places that do not fit together")
    if linear:
        _require_linear(parts)
    number = channels.pop()
    return Group(
        name=value.name or "",
        channels=number,
        axis=1 if axis == "second" else -1,
        each=count // number,
        lowered=parts,
        raised=tuple(raised(node, number) for node in readers),
    )


def _channels(part: Part) -> int:
    return max(part.spread)


def _require_linear(parts: Sequence[Part]) -> None:
    for part in parts:
        if part.measured and part.node.op_type not in _LINEAR:
            raise Left(f"{part.node.op_type} {part.node.name} makes it, which is no layer to equalize with")


def _require_chosen(group: Group, fixed: Set[str]) -> None:
    for name in group.layers:
        if name in fixed:
            raise Left(f"{name} would change with it and is not selected")
