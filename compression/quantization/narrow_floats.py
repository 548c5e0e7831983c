"""Weights stored in a narrower float type, which the runtime widens once as it loads the model.

bfloat16 keeps float32's range and 8 bits of mantissa; float8 (Micikevicius et al. 2022, arXiv:2209.05433) has a scale
for each output channel, as integers have, so that its largest value stands for the channel's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx_ir as ir

from compression.graph import Layer
from compression.method import LayerOutcome
from compression.quantization.affine import Array, sqnr_db
from compression.quantization.narrow.building import Builder
from compression.quantization.storage import (
    LAZY_BYTES,
    Names,
    as_numpy,
    blocker,
    integer_attributes,
    release,
    swap,
)
from compression.quantization.weight_only import weight_matrices
from compression.quantization.weights import CHAIN_BYTES, channel_axes, guess_axes

FloatName = Literal["float16", "bfloat16", "float8_e4m3", "float8_e5m2"]


@dataclass(frozen=True, kw_only=True)
class FloatForm:
    """A float type to store weights in."""

    name: FloatName
    dtype: ir.DataType
    numpy: type[Any]
    largest: float
    opset: int
    """The first that can cast from it."""
    scaled: bool = False
    """Each output channel has a scale that brings its largest weight to `largest`."""


FLOAT16 = FloatForm(name="float16", dtype=ir.DataType.FLOAT16, numpy=np.float16, largest=65504.0, opset=6)
_FORMS = (
    FLOAT16,
    FloatForm(
        name="bfloat16",
        dtype=ir.DataType.BFLOAT16,
        numpy=ml_dtypes.bfloat16,
        largest=(2 - 2.0**-7) * 2.0**127,
        opset=13,
    ),
    FloatForm(
        name="float8_e4m3",
        dtype=ir.DataType.FLOAT8E4M3FN,
        numpy=ml_dtypes.float8_e4m3fn,
        largest=448.0,
        opset=19,
        scaled=True,
    ),
    FloatForm(
        name="float8_e5m2",
        dtype=ir.DataType.FLOAT8E5M2,
        numpy=ml_dtypes.float8_e5m2,
        largest=57344.0,
        opset=19,
        scaled=True,
    ),
)
FORMS: dict[FloatName, FloatForm] = {form.name: form for form in _FORMS}


def overflow(weight: Array, form: FloatForm) -> str | None:
    """Why a weight does not fit the type, or None."""
    if weight.size == 0:
        return None
    peak = float(np.abs(weight).max())
    if not np.isfinite(peak):
        return "it holds NaN or infinity"
    return f"its largest value {peak:.4g} is beyond {form.largest:g}" if peak > form.largest else None


def scales(weight: Array, axes: Sequence[int], form: FloatForm) -> Array:
    """Largest magnitude along the other axes over the type's largest, float32; 1 where all are zero."""
    reduced = tuple(axis for axis in range(weight.ndim) if axis not in axes)
    peak = np.abs(weight).max(axis=reduced, keepdims=True).astype(np.float64)
    return np.where(peak > 0, peak / form.largest, 1.0).astype(np.float32)


def store_floats(
    layers: Sequence[Layer],
    everyone: Sequence[Layer],
    names: Names,
    report: Callable[[float, str], None],
    *,
    form: FloatForm = FLOAT16,
    opset: int = 13,
) -> tuple[LayerOutcome, ...]:
    """Store float matrices in the form behind a Cast that the runtime folds; the model computes as before."""
    store = _Store(frozenset(layer.name for layer in layers), everyone, names, form, opset)
    outcomes = []
    for count, layer in enumerate(layers):
        report(count / len(layers), f"storing the weights of {layer.name}")
        results = [store.once(layer, value) for value in weight_matrices(layer)]
        outcomes.append(_outcome(layer, results, form))
    return tuple(outcomes)


class _Store:
    def __init__(
        self, chosen: frozenset[str], everyone: Sequence[Layer], names: Names, form: FloatForm, opset: int
    ) -> None:
        self.chosen, self.names, self.form, self.opset = chosen, names, form, opset
        self.users: dict[int, set[str]] = {}
        for layer in everyone:
            for value in weight_matrices(layer):
                self.users.setdefault(id(value), set()).add(layer.name)
        self.done: dict[int, tuple[ir.Value, str | None, float]] = {}

    def once(self, layer: Layer, value: ir.Value) -> tuple[str | None, float]:
        """Why the weight was kept, or None with the signal to noise ratio (dB) of what is stored."""
        if id(value) not in self.done:
            outside = sorted(self.users[id(value)] - self.chosen)
            kept = f"its weight is shared with {outside[0]}, which is not to be touched" if outside else None
            self.done[id(value)] = (value, *((kept, 0.0) if kept else self._store(layer, value)))
        return self.done[id(value)][1:]

    def _store(self, layer: Layer, value: ir.Value) -> tuple[str | None, float]:
        tensor, form = ir.convenience.get_const_tensor(value), self.form
        reason = blocker(value)
        if reason or tensor is None:
            return reason or "it is no constant", 0.0
        if tensor.dtype.bitwidth <= form.dtype.bitwidth:
            return f"its weight is {tensor.dtype.name.lower()} already", 0.0
        weight = as_numpy(tensor)
        axes = _axes(layer, value, weight) if form.scaled else ()
        reason = _unfit(weight, form)
        if not reason and not _smaller(tensor, axes, form):
            reason = f"{form.name} would be no smaller"
        if reason:
            return reason, 0.0
        scale = scales(weight, axes, form) if form.scaled else None
        figure = sqnr_db(weight, _read_back(weight, scale, form))
        del weight
        release(tensor)
        self._write(value, tensor, scale)
        return None, figure

    def _write(self, value: ir.Value, tensor: ir.TensorProtocol, scale: Array | None) -> None:
        build = Builder(beside=value, names=self.names, opset=self.opset)
        stored = build.constant(self.form.name, _lazily(tensor, scale, self.form))
        wide = tensor.dtype if scale is None else ir.DataType.FLOAT
        last = build.node("Cast", [stored], "cast", to=wide.value)
        if scale is not None:
            last = build.node("Mul", [last, build.floats("scale", scale)], "scaled")
        if tensor.dtype != wide:
            build.node("Cast", [last], "back", to=tensor.dtype.value)
        swap(value, build.nodes)


def _unfit(weight: Array, form: FloatForm) -> str | None:
    if not form.scaled:
        return overflow(weight, form)
    return None if np.isfinite(weight).all() else "it holds NaN or infinity"


def _axes(layer: Layer, value: ir.Value, weight: Array) -> tuple[int, ...]:
    place = next(index for index, item in enumerate(layer.node.inputs) if item is value)
    found = channel_axes(layer.node.op_type, place, weight.shape, integer_attributes(layer.node))
    return guess_axes(weight) if found is None else found


def _smaller(tensor: ir.TensorProtocol, axes: Sequence[int], form: FloatForm) -> bool:
    shape = tensor.shape.numpy()
    channels = int(np.prod([shape[axis] for axis in axes])) if form.scaled else 0
    extra = CHAIN_BYTES if form.scaled else CHAIN_BYTES // 2
    return tensor.size * form.dtype.bitwidth // 8 + 4 * channels + extra < tensor.nbytes


def _narrowed(weight: Array, scale: Array | None, form: FloatForm) -> Array:
    return np.asarray((weight if scale is None else weight / scale).astype(form.numpy))


def _read_back(weight: Array, scale: Array | None, form: FloatForm) -> Array:
    wide = _narrowed(weight, scale, form).astype(np.float32)
    return wide if scale is None else wide * scale


def _lazily(tensor: ir.TensorProtocol, scale: Array | None, form: FloatForm) -> ir.TensorProtocol:
    """The narrow form; a large one is made again from its source when the model is written."""

    def made() -> ir.TensorProtocol:
        narrow = _narrowed(as_numpy(tensor), scale, form)
        release(tensor)
        return ir.Tensor(narrow, dtype=form.dtype)

    if tensor.size * form.dtype.bitwidth // 8 < LAZY_BYTES:
        return made()
    return ir.LazyTensor(made, dtype=form.dtype, shape=ir.Shape(tensor.shape.numpy()))


def _outcome(layer: Layer, results: Sequence[tuple[str | None, float]], form: FloatForm) -> LayerOutcome:
    stored = [figure for reason, figure in results if reason is None]
    if not stored:
        reasons = [reason for reason, _ in results if reason]
        return LayerOutcome(
            layer=layer.name, changed=False, note=reasons[0] if reasons else "it has no float matrix"
        )
    worst = min(stored)
    numbers = {"sqnr_db": worst} if abs(worst) != float("inf") else {}
    scaled = ", one scale per channel" if form.scaled else ""
    note = f"stored as {form.name}{scaled}, computed with as before"
    return LayerOutcome(layer=layer.name, changed=True, note=note, numbers=numbers)
