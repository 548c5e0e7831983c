"""Which layers keep all or some of their outputs, and why."""

from collections.abc import Mapping

import numpy as np

from compression.graph.channels.group import Locked
from compression.graph.channels.labels import Label, Rigid, kept, size_of, vectors
from compression.graph.channels.reading import Made, Reading
from compression.graph.channels.sizes import ONE
from compression.graph.layer import Layer, layers


def locked_layers(reading: Reading, roots: np.ndarray, free: np.ndarray) -> tuple[Locked, ...]:
    """In graph order. `free` are the roots of the units that belong to groups."""
    loose = np.zeros(reading.units.count, dtype=bool)
    loose[free] = True
    reasons = {int(roots[lock]): reason for lock, reason in reversed(list(reading.units.locks.items()))}
    makers: dict[str, Made] = {}
    for made in reading.made:
        makers.setdefault(made.node.name or "", made)
    found = [
        _locked(layer, makers.get(layer.name), reading, roots, loose, reasons) for layer in _kernels(reading)
    ]
    return tuple(item for item in found if item is not None)


def _kernels(reading: Reading) -> list[Layer]:
    """Layers with a matrix or kernel; those with vectors only follow others."""
    return [
        layer
        for layer in layers(reading.model)
        if any(value.const_value is not None and len(value.const_value.shape) > 1 for value in layer.weights)
    ]


def _locked(
    layer: Layer,
    made: Made | None,
    reading: Reading,
    roots: np.ndarray,
    loose: np.ndarray,
    reasons: Mapping[int, str],
) -> Locked | None:
    labels = [made.label] if made is not None else _weight_axes(layer, reading)
    stays = [kept(label, ~loose[roots]) for label in labels if size_of(label) != ONE]
    if made is None and not all(part.all() for part in stays):
        return None
    if stays and not any(part.any() for part in stays):
        return None
    held = [root for label in labels for vector in vectors(label) for root in roots[vector].tolist()]
    reason = next((reasons[root] for root in held if root in reasons), None)
    reason = reason or _rigid_reason(reading, labels) or "they are tied with all others of it"
    return Locked(layer=layer.name, reason=reason, partly=not all(part.all() for part in stays))


def _weight_axes(layer: Layer, reading: Reading) -> list[Label]:
    """Of a layer whose outputs no weight makes alone, or whose operator has no rule."""
    return [label for value in layer.weights for label in reading.labels.get(value) or ()]


def _rigid_reason(reading: Reading, labels: list[Label]) -> str | None:
    locks = [
        factor.lock
        for label in labels
        for segment in label
        for factor in segment
        if isinstance(factor, Rigid)
    ]
    return reading.units.locks[locks[0]] if locks else None
