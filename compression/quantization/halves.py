"""float16: as a storage type that the runtime widens at load, and as the type that the model computes in."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from compression.graph import Layer
from compression.method import LayerOutcome
from compression.quantization.affine import Array, sqnr_db
from compression.quantization.storage import LAZY_BYTES, Names, as_numpy, blocker, release, store_narrow
from compression.quantization.weight_only import weight_matrices
from compression.quantization.weights import CHAIN_BYTES

LARGEST = 65504.0
"""The largest float16."""
BLOCKED = frozenset(
    {
        "BatchNormalization",
        "Cast",
        "CastLike",
        "CumSum",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "EyeLike",
        "GridSample",
        "Max",
        "Min",
        "Multinomial",
        "NonMaxSuppression",
        "QuantizeLinear",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Range",
        "Resize",
        "RoiAlign",
        "STFT",
        "TopK",
        "Upsample",
    }
)
"""Operators kept in float32: their kernels lack float16, lose too much in it, or carry a type in an
attribute."""


def overflow(weight: Array) -> str | None:
    """Why a weight does not fit float16, or None."""
    if weight.size == 0:
        return None
    peak = float(np.abs(weight).max())
    if not np.isfinite(peak):
        return "it holds NaN or infinity"
    return f"its largest value {peak:.4g} is beyond {LARGEST:g}" if peak > LARGEST else None


def store_halves(
    layers: Sequence[Layer], everyone: Sequence[Layer], names: Names, report: Callable[[float, str], None]
) -> tuple[LayerOutcome, ...]:
    """Store float32 matrices as float16 behind a Cast that the runtime folds; the model computes as
    before."""
    chosen = {layer.name for layer in layers}
    users: dict[int, set[str]] = {}
    for layer in everyone:
        for value in weight_matrices(layer):
            users.setdefault(id(value), set()).add(layer.name)
    done: dict[int, tuple[ir.Value, str | None, float]] = {}
    outcomes = []
    for count, layer in enumerate(layers):
        report(count / len(layers), f"storing the weights of {layer.name}")
        results = []
        for value in weight_matrices(layer):
            if id(value) not in done:
                outside = sorted(users[id(value)] - chosen)
                kept = (
                    f"its weight is shared with {outside[0]}, which is not to be touched" if outside else None
                )
                done[id(value)] = (value, *((kept, 0.0) if kept else _store_half(value, names)))
            results.append(done[id(value)][1:])
        outcomes.append(_outcome(layer, results))
    return tuple(outcomes)


def _store_half(value: ir.Value, names: Names) -> tuple[str | None, float]:
    tensor = ir.convenience.get_const_tensor(value)
    reason = blocker(value)
    if reason or tensor is None:
        return reason or "it is no constant", 0.0
    if tensor.dtype not in {ir.DataType.FLOAT, ir.DataType.DOUBLE}:
        return f"its weight is {tensor.dtype.name.lower()} already", 0.0
    weight = as_numpy(tensor)
    reason = overflow(weight)
    if reason or tensor.nbytes - weight.size * 2 <= CHAIN_BYTES // 2:
        return reason or "float16 would be no smaller", 0.0
    half = weight.astype(np.float16)
    figure = sqnr_db(weight, half)
    del weight
    release(tensor)
    store_narrow(value, _lazily(tensor, half), names)
    return None, figure


def _lazily(tensor: ir.TensorProtocol, half: Array) -> ir.TensorProtocol:
    """The float16 form; a large one is made again from its source when the model is written."""
    if half.nbytes < LAZY_BYTES:
        return ir.tensor(half)

    def again() -> ir.TensorProtocol:
        made = as_numpy(tensor).astype(np.float16)
        release(tensor)
        return ir.tensor(made)

    return ir.LazyTensor(again, dtype=ir.DataType.FLOAT16, shape=ir.Shape(half.shape))


def _outcome(layer: Layer, results: Sequence[tuple[str | None, float]]) -> LayerOutcome:
    stored = [figure for reason, figure in results if reason is None]
    if not stored:
        reasons = [reason for reason, _ in results if reason]
        return LayerOutcome(
            layer=layer.name, changed=False, note=reasons[0] if reasons else "it has no float matrix"
        )
    worst = min(stored)
    numbers = {"sqnr_db": worst} if abs(worst) != float("inf") else {}
    return LayerOutcome(
        layer=layer.name, changed=True, note="stored as float16, computed with as before", numbers=numbers
    )


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What computing in float16 took: nodes that changed, and why others did not, by name."""

    nodes: frozenset[str]
    count: int
    kept: dict[str, str]


def compute_in_halves(model: ir.Model, keep: Set[str], large: Mapping[str, str]) -> Converted:
    """Let the main graph's nodes compute in float16 where their operator allows it; inputs and outputs stay.

    Every float32 value gets a float16 twin where a converted node needs one, and the other way round, so that
    casts stand only on the borders. Bodies of If, Loop and Scan, and functions, stay in float32.

    Args:
        model: changed in place; its values need known types.
        keep: layers, by name, that stay in float32.
        large: tensors, by name, that go beyond float16, each with a phrase that says so.
    """
    return _Converter(model, keep, large).run()


class _Converter:
    def __init__(self, model: ir.Model, keep: Set[str], large: Mapping[str, str]) -> None:
        self.graph = model.graph
        self.opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
        self.keep = keep
        self.large = large
        self.names = Names(model)
        self.half: dict[ir.Value, ir.Value] = {}
        self.kept: dict[str, str] = {}

    def run(self) -> Converted:
        nodes = [node for node in self.graph if self._convertible(node)]
        for node in nodes:
            for index, value in enumerate(node.inputs):
                if value is not None and value.dtype == ir.DataType.FLOAT:
                    node.replace_input_with(index, self._halved(value, node))
            for output in node.outputs:
                if output.dtype == ir.DataType.FLOAT and output.name:
                    self._widen(output, node)
        self._tidy()
        return Converted(nodes=frozenset(node.name or "" for node in nodes), count=len(nodes), kept=self.kept)

    def _convertible(self, node: ir.Node) -> bool:
        reason = self._refusal(node)
        if reason and node.name:
            self.kept[node.name] = reason
        return reason is None

    def _refusal(self, node: ir.Node) -> str | None:
        if node.name in self.keep:
            return "it is not selected"
        if node.domain not in ("", "ai.onnx"):
            return f"{node.domain}.{node.op_type} is no standard operator"
        if node.op_type in BLOCKED or any(
            attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()
        ):
            return f"{node.op_type} is kept in float32"
        return self._type_refusal(node) or next(
            filter(None, map(self._overflows, (*node.inputs, *node.outputs))), None
        )

    def _type_refusal(self, node: ir.Node) -> str | None:
        values = [value for value in (*node.inputs, *node.outputs) if value is not None and value.name]
        if any(value.dtype is None for value in values):
            return "the type of one of its tensors is unknown"
        if not any(value.dtype == ir.DataType.FLOAT for value in values):
            return "it has no float32 tensor"
        if not takes_halves(node, self.opset):
            return f"{node.op_type} takes no float16 at opset {self.opset}"
        return None

    def _overflows(self, value: ir.Value | None) -> str | None:
        if value is None or value.dtype != ir.DataType.FLOAT:
            return None
        if value.const_value is None:
            return self.large.get(value.name or "")
        reason = overflow(as_numpy(value.const_value))
        return f"{value.name}: {reason}" if reason else None

    def _halved(self, value: ir.Value, node: ir.Node) -> ir.Value:
        if value not in self.half:
            self.half[value] = self._constant(value) or self._cast(
                value, ir.DataType.FLOAT16, node, before=True
            )
        return self.half[value]

    def _constant(self, value: ir.Value) -> ir.Value | None:
        tensor = value.const_value
        if tensor is None or value.is_graph_input() or value.producer() is not None:
            return None
        half = ir.tensor(as_numpy(tensor).astype(np.float16))
        new = ir.Value(
            name=self.names(f"{value.name}_half"),
            type=ir.TensorType(ir.DataType.FLOAT16),
            shape=value.shape,
            const_value=half,
        )
        self.graph.register_initializer(new)
        return new

    def _widen(self, output: ir.Value, node: ir.Node) -> None:
        """The node now writes float16; float32 readers get a cast, dropped again where nobody needs it."""
        name = output.name
        wide = self._cast(output, ir.DataType.FLOAT, node, before=False)
        cast = wide.producer()
        wide.shape = output.shape
        for use in list(output.uses()):
            if use.node is not cast:
                use.node.replace_input_with(use.idx, wide)
        for index, value in enumerate(self.graph.outputs):
            if value is output:
                self.graph.outputs[index] = wide
        output.type = ir.TensorType(ir.DataType.FLOAT16)
        output.name = self.names(f"{name}_half")
        wide.name = name
        self.half[wide] = output

    def _cast(self, value: ir.Value, dtype: ir.DataType, node: ir.Node, *, before: bool) -> ir.Value:
        name = self.names(f"{value.name}_{dtype.name.lower()}")
        cast = ir.node("Cast", [value], {"to": dtype.value}, name=name)
        cast.outputs[0].name = name
        cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(dtype), value.shape
        if before:
            self.graph.insert_before(node, [cast])
        else:
            self.graph.insert_after(node, [cast])
        return cast.outputs[0]

    def _tidy(self) -> None:
        """Remove casts and float32 constants that nobody reads any more."""
        for wide, half in self.half.items():
            cast = wide.producer()
            if wide.uses() or wide.is_graph_output():
                continue
            if cast is not None and cast.op_type == "Cast" and cast.inputs[0] is half:
                self.graph.remove(cast, safe=True)
            elif wide.name in self.graph.initializers and not wide.is_graph_input():
                del self.graph.initializers[wide.name or ""]


def takes_halves(node: ir.Node, opset: int) -> bool:
    """Whether the operator's schema lets every float32 tensor of the node be float16.

    The types of its outputs have to follow from those of its inputs, not from an attribute.
    """
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return False
    allowed = {item.type_param_str: set(item.allowed_type_strs) for item in schema.type_constraints}
    given, made = _typed(node.inputs, schema.inputs), _typed(node.outputs, schema.outputs)
    return set(made) <= set(given) and all("tensor(float16)" in allowed.get(kind, {kind}) for kind in given)


def _typed(
    values: Sequence[ir.Value | None], formals: Sequence["onnx.defs.OpSchema.FormalParameter"]
) -> list[str]:
    """The schema's type names of the float32 tensors; the last formal parameter stands for all that
    follow."""
    return [
        formals[min(index, len(formals) - 1)].type_str
        for index, value in enumerate(values)
        if value is not None and value.name and value.dtype == ir.DataType.FLOAT
    ]
