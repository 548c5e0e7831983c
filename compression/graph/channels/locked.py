"""Which layers keep all or some of their outputs, and why."""

import numpy as np

from compression.graph.channels.group import Locked
from compression.graph.channels.labels import Label, Rigid, kept, size_of, vectors
from compression.graph.channels.notes import Made
from compression.graph.channels.reading import Reading
from compression.graph.channels.sizes import ONE
from compression.graph.layer import Layer, layers


def locked_layers(reading: Reading, roots: np.ndarray, free: np.ndarray) -> tuple[Locked, ...]:
    """In graph order. `free` are the roots of the units that belong to groups."""
    finder = _Finder(reading, roots, free)
    found = [finder.locked(layer) for layer in layers(reading.model) if _has_kernel(layer)]
    return tuple(item for item in found if item is not None)


def _has_kernel(layer: Layer) -> bool:
    """Layers that have but vectors follow others."""
    tensors = [value.const_value for value in layer.weights]
    return any(tensor is not None and len(tensor.shape) > 1 for tensor in tensors)


class _Finder:
    def __init__(self, reading: Reading, roots: np.ndarray, free: np.ndarray) -> None:
        self._reading = reading
        self._roots = roots
        self._stays = np.ones(reading.units.count, dtype=bool)
        self._stays[free] = False
        self._stays = self._stays[roots]
        locks = reversed(list(reading.units.locks.items()))
        self._reasons = {int(roots[lock]): reason for lock, reason in locks}
        self._made: dict[str, Made] = {}
        for made in reading.made:
            self._made.setdefault(made.node.name or "", made)

    def locked(self, layer: Layer) -> Locked | None:
        """None where every output of the layer belongs to a group."""
        made = self._made.get(layer.name)
        labels = [made.label] if made is not None else self._weight_axes(layer)
        stays = [kept(label, self._stays) for label in labels if size_of(label) != ONE]
        if stays and not any(part.any() for part in stays):
            return None
        whole = all(part.all() for part in stays)
        if made is None and not whole:
            return None
        return Locked(layer=layer.name, reason=self._reason(labels), partly=not whole)

    def _weight_axes(self, layer: Layer) -> list[Label]:
        """Of a layer of which nobody said which axis it makes: its operator has no rule."""
        return [label for value in layer.weights for label in self._reading.labels.get(value) or ()]

    def _reason(self, labels: list[Label]) -> str:
        if not labels:
            return "its weights are not looked into"
        if all(size_of(label) == ONE for label in labels):
            return "it has a single output"
        units = [vector[self._stays[vector]] for label in labels for vector in vectors(label)]
        roots = [int(root) for vector in units for root in self._roots[vector]]
        locks = [
            factor.lock
            for label in labels
            for segment in label
            for factor in segment
            if isinstance(factor, Rigid)
        ]
        found = [self._reasons[root] for root in roots if root in self._reasons]
        return next(iter([*found, *[self._reading.units.locks[lock] for lock in locks]]), ALONE)


ALONE = "all of them are tied together"
