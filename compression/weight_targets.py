"""Which tensors a method that changes weight values works on, and putting changed values in their place.

Kernels and matrices are targets; biases, normalization parameters and other one-dimensional weights are not.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from compression.method import Problem
from compression.summary import LayerSummary, ModelSummary, WeightSummary

if TYPE_CHECKING:
    import onnx_ir as ir

    from compression.graph import Layer

RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
OP_TYPES = (
    frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Gather", "FusedConv", "FusedGemm", "FusedMatMul"})
    | RECURRENT
)
FLOATS = frozenset({"FLOAT16", "BFLOAT16", "FLOAT", "DOUBLE"})
PIECE = 1 << 22
"""Elements looked at in one go."""
IN_MEMORY_BYTES = 64 * 2**20
"""Larger tensors are computed anew at every reading, so that a big model never lies in memory whole."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One tensor, once, however many layers share it."""

    value: "ir.Value"
    tensor: "ir.TensorProtocol"
    layers: tuple["Layer", ...]

    @property
    def size(self) -> int:
        return int(self.tensor.size)

    @property
    def is_wide(self) -> bool:
        return self.tensor.dtype.name == "DOUBLE"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape.numpy())

    def pieces(self) -> Iterator[np.ndarray]:
        """The values as they are now, flat and a few at a time: a big tensor is never in memory whole."""
        tensor = self.value.const_value
        if tensor is not None:
            flat = tensor.numpy().reshape(-1)
            for start in range(0, flat.size, PIECE):
                yield flat[start : start + PIECE].copy()
            del flat
            _release(tensor)


def target_weights(layer: LayerSummary) -> tuple[WeightSummary, ...]:
    """The weights of a layer that count as targets, from its summary."""
    chosen = layer.weights if layer.op_type in RECURRENT else layer.weights[:1]
    rank = 3 if layer.op_type in RECURRENT else 2
    return tuple(weight for weight in chosen if weight.is_float and len(weight.shape) >= rank)


def no_targets(model: ModelSummary, layers: Sequence[str]) -> tuple[Problem, ...]:
    """The problem of a step whose selected layers have nothing that `target_weights` gives; none where one has."""
    if not layers or any(target_weights(model.layer(name)) for name in layers):
        return ()
    problem = Problem(
        code="not_applicable",
        message="the selected layers have no kernels or matrices that hold floats",
        where="layers",
        hint="select convolutions or matrix products",
    )
    return (problem,)


def find_targets(
    chosen: Sequence["Layer"], everything: Sequence["Layer"]
) -> tuple[tuple[Target, ...], dict[str, str]]:
    """The tensors of the chosen layers; and by layer name, why one is left alone.

    A tensor that a layer outside the choice also computes with stays as it is: excluded layers must not
    change.
    """
    owners: dict[int, list[Layer]] = {}
    for layer in everything:
        for value in layer.weights:
            owners.setdefault(id(value), []).append(layer)
    names = {layer.name for layer in chosen}
    targets: dict[int, Target] = {}
    kept: dict[str, str] = {}
    for layer in chosen:
        for value in _target_values(layer):
            outsider = next((owner.name for owner in owners[id(value)] if owner.name not in names), None)
            if outsider is not None:
                kept[layer.name] = f"shares its weight with {outsider!r}, which is not selected"
            elif id(value) not in targets and value.const_value is not None:
                targets[id(value)] = Target(
                    value=value, tensor=value.const_value, layers=tuple(owners[id(value)])
                )
    return tuple(targets.values()), kept


def streaming_memory(model: ModelSummary) -> int:
    """Peak bytes of a step that takes one tensor at a time, and of the check that opens its result.

    Tensors up to IN_MEMORY_BYTES stay until the result is saved; of a larger one a few float64 copies live
    for a moment; onnxruntime then holds the result about twice.
    """
    sizes = [weight.size_bytes for layer in model.layers for weight in layer.weights]
    kept = sum(size for size in sizes if size <= IN_MEMORY_BYTES)
    step = kept + 6 * max(sizes, default=0)
    return 200_000_000 + max(step, 2 * model.size_bytes)


def put(target: Target, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replaces a tensor by `change` of it, of the same shape and type, in every layer that shares it.

    `change` must be pure: for large tensors it runs again at every reading.
    """
    import onnx_ir as ir

    from compression.graph import replace_weight

    old = target.tensor

    def compute() -> "ir.TensorProtocol":
        changed = change(old.numpy())
        _release(old)
        return ir.Tensor(changed, dtype=old.dtype, name=old.name)

    new: ir.TensorProtocol = (
        compute()
        if old.nbytes <= IN_MEMORY_BYTES
        else ir.LazyTensor(compute, old.dtype, ir.Shape(target.shape), name=old.name)
    )
    layer = target.layers[0]
    index = next(place for place, value in enumerate(layer.weights) if value is target.value)
    replace_weight(layer, new, index=index)


def reduction_axis(layer: "Layer", value: "ir.Value") -> int | None:
    """The axis of a stored weight that its layer sums over: input channels, or K of a product.

    Sparse kernels need their N:M groups along it. An embedding sums over nothing; its last axis stands in.
    None where the weight is reshaped on its way to the layer.
    """
    place, path = _path(layer.node, value)
    if place is None:
        return None
    return _stored_axis(value, path, _input_axis(layer.node, place, len(value.shape or ())))


def output_axis(layer: "Layer", value: "ir.Value") -> int | None:
    """The axis of a stored weight that counts what its layer gives: output channels, N of a product, words.

    Of a recurrent layer these are the rows of its gates. None where the weight is reshaped on its way to the
    layer, or where it holds several groups' outputs side by side (transposed convolution in groups).
    """
    place, path = _path(layer.node, value)
    rank = len(value.shape or ())
    if place is None:
        return None
    kind = layer.node.op_type
    if kind in ("Conv", "FusedConv", "Gather"):
        return _stored_axis(value, path, 0)
    if kind == "ConvTranspose":
        groups = layer.node.attributes.get("group")
        return None if groups is not None and groups.as_int() > 1 else _stored_axis(value, path, 1)
    if kind in RECURRENT:
        return _stored_axis(value, path, rank - 2)
    return _stored_axis(value, path, 2 * rank - 3 - _input_axis(layer.node, place, rank))


def _stored_axis(value: "ir.Value", path: Sequence["ir.Node"], axis: int) -> int | None:
    """Where an axis of a layer's input lies in the stored tensor; None where it is reshaped in between."""
    for node in path:
        if node.op_type == "Transpose":
            order = node.attributes.get("perm")
            axis = order.as_ints()[axis] if order is not None else len(value.shape or ()) - 1 - axis
        elif node.op_type not in ("Identity", "Cast"):
            return None
    return axis


def _input_axis(node: "ir.Node", place: int, rank: int) -> int:
    if node.op_type in ("Conv", "FusedConv"):
        return 1
    if node.op_type == "ConvTranspose":
        return 0
    if node.op_type in ("Gemm", "FusedGemm", "MatMul", "FusedMatMul"):
        transposed = _flag(node, "transB" if place else "transA")
        return rank - 1 if (place == 0) != transposed else rank - 2
    return rank - 1


def _path(node: "ir.Node", value: "ir.Value") -> tuple[int | None, list["ir.Node"]]:
    """Which input of a node a stored weight reaches, and the nodes in between, nearest to the layer first."""
    for place, given in enumerate(node.inputs):
        path: list[ir.Node] = []
        current = given
        while current is not None:
            if current is value:
                return place, path
            producer = current.producer()
            if producer is None or not producer.inputs:
                break
            path.append(producer)
            current = producer.inputs[0]
    return None, []


def _release(tensor: "ir.TensorProtocol") -> None:
    """Lets go of the pages of a memory-mapped tensor; it can be read again."""
    release = getattr(tensor, "release", None)
    if release is not None:
        # Somebody may still look at the pages; then they stay until that ends.
        with suppress(BufferError):
            release()


def _flag(node: "ir.Node", name: str) -> bool:
    attribute = node.attributes.get(name)
    return attribute is not None and bool(attribute.as_int())


def _target_values(layer: "Layer") -> Iterator["ir.Value"]:
    recurrent = layer.node.op_type in RECURRENT
    for value in layer.weights if recurrent else layer.weights[:1]:
        tensor = value.const_value
        if tensor is None or tensor.dtype.name not in FLOATS or _is_bias(layer.node, value):
            continue
        if len(tensor.shape) >= (3 if recurrent else 2):
            yield value


def _is_bias(node: "ir.Node", value: "ir.Value") -> bool:
    return node.op_type in ("Gemm", "FusedGemm") and len(node.inputs) > 2 and node.inputs[2] is value
