"""How many weights a model computes with, how many of them are zero, and what is stored for them.

Stored numbers are not weights: four bits share a byte with four others, an index 0 stands for whatever value comes
first in a codebook, and a dictionary with codes holds fewer numbers than it gives weights. So where a weight is
computed from stored constants, those values count that the layer gets.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from compression.evaluation.constants import Array, behind, constant_array, leaves
from compression.evaluation.packed_weights import packed_counts
from compression.summary import ModelSummary, WeightSummary

if TYPE_CHECKING:
    import onnx_ir as ir

    from compression.graph import Layer

CHUNK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Weights, those of them that are exactly zero, and the bytes of all that is stored for them."""

    elements: int
    zeros: int
    size_bytes: int

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(
            elements=self.elements + other.elements,
            zeros=self.zeros + other.zeros,
            size_bytes=self.size_bytes + other.size_bytes,
        )

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return self.zeros / self.elements if self.elements else 0.0


NONE = Counted(elements=0, zeros=0, size_bytes=0)
Known = MutableMapping["ir.Value", tuple[int, int]]
"""Elements and zeros of values that somebody has computed already."""


def remember(known: Known) -> Callable[["ir.Value", Array], None]:
    """Notes an array's counts as it comes by."""

    def note(value: "ir.Value", array: Array) -> None:
        known[value] = (array.size, _zeros(array))

    return note


def count_weights(
    model: "ir.Model", summary: ModelSummary, known: Mapping["ir.Value", tuple[int, int]]
) -> tuple[dict[str, Counted], Counted]:
    """By layer; and of the whole model, where a weight that several layers share counts once.

    Args:
        model: loaded.
        summary: of the same model.
        known: see `remember`; what is not there is computed.
    """
    from compression.graph import layers

    by_layer: dict[str, Counted] = {}
    everything: dict[ir.Value, Counted] = {}
    for layer, told in zip(layers(model), summary.layers, strict=True):
        stored = dict(zip(layer.weights, told.weights, strict=True))
        own = dict(_inputs(layer, stored, known, everything))
        by_layer[layer.name] = sum(own.values(), NONE)
        everything |= own
    return by_layer, sum(everything.values(), NONE)


def _inputs(
    layer: "Layer",
    stored: Mapping["ir.Value", WeightSummary],
    known: Mapping["ir.Value", tuple[int, int]],
    done: Mapping["ir.Value", Counted],
) -> Iterator[tuple["ir.Value", Counted]]:
    """What constants give an input of the node, and stored weights that it reads as they are."""
    left = dict(stored)
    for value in dict.fromkeys(
        value for value in layer.node.inputs if value is not None and value not in stored
    ):
        tensors = leaves(value)
        sources = [source for source in dict.fromkeys(behind(value)) if source in stored] if tensors else []
        for source in sources:
            left.pop(source, None)
        if sources and tensors:
            direct = _stored([stored[source] for source in sources])
            yield value, done.get(value) or _computed(value, direct, tensors, known)
    for value, weight in left.items():
        yield value, done.get(value) or _read(layer.node, value, weight)


def _read(node: "ir.Node", value: "ir.Value", weight: WeightSummary) -> Counted:
    """Of a stored tensor that the node reads as it is, or unpacks by itself with the scales that it reads too."""
    counts = packed_counts(node) if len(node.inputs) > 1 and node.inputs[1] is value else None
    if counts is None:
        return _stored([weight])
    given = [item.const_value for item in node.inputs[1:4] if item is not None]
    size_bytes = sum(int(tensor.nbytes) for tensor in given if tensor is not None)
    return Counted(elements=counts[0], zeros=counts[1], size_bytes=size_bytes)


def _stored(weights: Sequence[WeightSummary]) -> Counted:
    return Counted(
        elements=sum(weight.elements for weight in weights),
        zeros=sum(weight.zeros for weight in weights),
        size_bytes=sum(weight.size_bytes for weight in weights),
    )


def _computed(
    value: "ir.Value",
    stored: Counted,
    tensors: Sequence["ir.TensorProtocol"],
    known: Mapping["ir.Value", tuple[int, int]],
) -> Counted:
    """Of a value that constants alone give; elements and zeros as stored, where it cannot be computed here."""
    counts = known.get(value)
    if counts is None:
        array = constant_array(value)
        counts = None if array is None else (array.size, _zeros(array))
    elements, zeros = counts or (stored.elements, stored.zeros)
    return Counted(elements=elements, zeros=zeros, size_bytes=sum(int(tensor.nbytes) for tensor in tensors))


def _zeros(array: Array) -> int:
    flat = array.reshape(-1)
    return sum(
        int(np.count_nonzero(flat[start : start + CHUNK] == 0)) for start in range(0, flat.size, CHUNK)
    )
