"""Says of each layer what became of its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from compression.graph import Layer, layers
from compression.graph.channels import Group, Grouping
from compression.method import LayerOutcome

Shapes = Mapping[str, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True, kw_only=True)
class Told:
    """A model in figures: shapes of each layer's weights, operations, bytes of weights."""

    shapes: Shapes
    macs: float | None
    size_bytes: int

    @classmethod
    def of(cls, model: ir.Model, macs: float | None, size_bytes: int) -> "Told":
        shapes = {
            layer.name: tuple(
                tuple(int(size) for size in value.const_value.shape.numpy())
                for value in layer.weights
                if value.const_value is not None
            )
            for layer in layers(model)
        }
        return cls(shapes=shapes, macs=macs, size_bytes=size_bytes)


def outcomes(
    chosen: Sequence[Layer],
    grouping: Grouping,
    told: tuple[Told, Told],
    cut: Mapping[str, tuple[Group, int]],
    whole: Mapping[str, str],
) -> tuple[LayerOutcome, ...]:
    """Of every layer that shrank or was selected, in graph order.

    Args:
        chosen: the selected layers.
        grouping: of the model before the cut.
        told: the model before and after it.
        cut: by id the groups that were cut, with how many units left.
        whole: by id why a group stayed.
    """
    before, after = told
    reasons = {lock.layer: lock.reason for lock in grouping.locked}
    for group in grouping.groups:
        if group.id in whole and group.layers:
            reasons.setdefault(group.layers[0], whole[group.id])
    made = _made(cut)
    names = {layer.name for layer in chosen}
    found = []
    for name, shapes in before.shapes.items():
        now = after.shapes.get(name, ())
        if shapes != now:
            found.append(_shrunk(name, shapes, now, made.get(name), reasons.get(name)))
        elif name in names:
            found.append(
                LayerOutcome(layer=name, changed=False, note=reasons.get(name, "nothing of it leaves"))
            )
    return tuple(found)


def _made(cut: Mapping[str, tuple[Group, int]]) -> dict[str, tuple[int, int, str]]:
    """By the layer that a group is named after: units that stay, units before, what they are."""
    return {
        name.split(":")[0] if name not in group.layers else name: (group.size - gone, group.size, group.unit)
        for name, (group, gone) in cut.items()
    }


def _shrunk(
    name: str,
    before: tuple[tuple[int, ...], ...],
    after: tuple[tuple[int, ...], ...],
    units: tuple[int, int, str] | None,
    reason: str | None,
) -> LayerOutcome:
    shapes = next(
        (
            f"{list(one)} became {list(other)}"
            for one, other in zip(before, after, strict=False)
            if one != other
        ),
        "weights shrank",
    )
    numbers: dict[str, float] = {}
    parts = [shapes]
    if units is not None:
        stay, size, unit = units
        numbers = {"units_before": float(size), "units_after": float(stay)}
        plural = unit if unit == "hidden" else f"{unit}s"
        parts.insert(0, f"{stay} of {size} {plural + ' units' if unit == 'hidden' else plural} stay")
    if reason is not None:
        parts.append(f"its outputs stay: {reason}")
    return LayerOutcome(layer=name, changed=True, note="; ".join(parts), numbers=numbers)
