"""Dynamic quantization: weights as int8, activations quantized anew at every inference from their own
range."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from compression.errors import CompressionError
from compression.graph import Layer, clean, upgrade_opset
from compression.graph import layers as layers_of
from compression.method import StepContext, StepOutcome
from compression.quantization.check import output_check
from compression.quantization.placement import Placement
from compression.quantization.regions import constant_of, refusal
from compression.quantization.storage import Names, as_numpy, integer_attributes
from compression.quantization.target import resolve_target
from compression.quantization.telling import decided, fall_back
from compression.quantization.weights import quantize_weight, require_finite

_OPSET = 11
"""The first with DynamicQuantizeLinear."""
_MICROSOFT = "com.microsoft"


def quantize_dynamically(
    model: ir.Model,
    chosen: Sequence[Layer],
    context: StepContext,
    *,
    min_output_sqnr_db: float,
    min_sqnr_db: float,
    max_seconds: float,
) -> StepOutcome:
    """Put integers where they pay, measured; store the weights of all other layers as int8.

    Raises:
        NotApplicable: a weight holds NaN or infinity.
    """
    reasons = {layer.name: why_not(layer) for layer in chosen}
    check = output_check(model, context, min_output_sqnr_db)
    fallback = fall_back(model, reasons.keys(), check, min_sqnr_db=min_sqnr_db)
    if all(reasons.values()):
        return fallback.outcome("no layer has a dynamic integer kernel", {})
    if check.probe is None:
        return fallback.outcome(f"integers were not tried: {check.reason}", {})
    try:
        prepared = clean(upgrade_opset(model.clone(), _OPSET))
    except CompressionError as error:
        return fallback.outcome(f"integers were not tried: {error.message}", {})
    target = resolve_target("cpu", context.device)
    search = Placement(
        original=model,
        prepared=prepared,
        layers=frozenset(reasons),
        integers=DynamicIntegers(weight_bits=target.weight_bits),
        check=check,
        min_sqnr_db=min_sqnr_db,
        wide=fallback.judged.widened,
        seconds=max_seconds,
    )
    details = {"inputs": check.probe.source, "target": target.name, "weight_bits": target.weight_bits}
    return decided(search.search(), fallback, reasons, details)


def why_not(layer: Layer) -> str | None:
    """Why a layer cannot compute in integers with dynamic ranges, or None where it can."""
    node = layer.node
    if node.op_type == "LSTM":
        return _lstm_refusal(node)
    if node.op_type == "Conv":
        return "convolutions with dynamic ranges are slow everywhere: quantize_static is made for them"
    if layer.graph is not node.graph or not isinstance(node.graph, ir.Graph):
        return "it stands in a function"
    return refusal(node)


class DynamicIntegers:
    """MatMulInteger behind DynamicQuantizeLinear, and DynamicQuantizeLSTM.

    Their activations are uint8, so that weights have no more than the target's `weight_bits`.
    """

    ladder: ClassVar[tuple[tuple[str, frozenset[str]], ...]] = (
        ("matrix products", frozenset({"MatMul", "Gemm"})),
        ("recurrent layers", frozenset({"LSTM"})),
        ("everything", frozenset({"MatMul", "Gemm", "LSTM"})),
    )

    def __init__(self, *, weight_bits: int) -> None:
        self.weight_bits = weight_bits

    def reach(self, model: ir.Model, layers: Set[str], groups: Set[str]) -> tuple[frozenset[str], int]:
        found = _reached(model, layers, groups)
        return frozenset(layer.name for layer in found), len(found)

    def write(self, model: ir.Model, layers: Set[str], groups: Set[str]) -> Mapping[str, float]:
        found = _reached(model, layers, groups)
        writer = _Writer(Names(model), self.weight_bits)
        if any(layer.node.op_type == "LSTM" for layer in found):
            model.opset_imports.setdefault(_MICROSOFT, 1)
        return {
            layer.name: writer.lstm(layer.node)
            if layer.node.op_type == "LSTM"
            else writer.product(layer.node)
            for layer in found
        }


def _reached(model: ir.Model, layers: Set[str], groups: Set[str]) -> list[Layer]:
    return [
        layer
        for layer in layers_of(model)
        if layer.name in layers and layer.node.op_type in groups and why_not(layer) is None
    ]


def _lstm_refusal(node: ir.Node) -> str | None:
    if integer_attributes(node).get("layout", 0):
        return "LSTM with layout 1 has no integer kernel"
    for index in (1, 2):
        tensor = constant_of(node.inputs[index])
        if tensor is None:
            return "its weight is no constant"
        if tensor.dtype != ir.DataType.FLOAT:
            return f"its weight is {tensor.dtype.name.lower()}, not float32"
    return None


@dataclass(frozen=True, kw_only=True)
class _Stored:
    integers: ir.Value
    scale: ir.Value
    sqnr_db: float


class _Writer:
    def __init__(self, names: Names, weight_bits: int) -> None:
        self.names = names
        self.weight_bits = weight_bits
        self.quantized: dict[ir.Value, tuple[ir.Value, ...]] = {}
        self.stored: dict[tuple[ir.Graph, ir.Value, bool], _Stored] = {}

    def product(self, node: ir.Node) -> float:
        """x W + b as (MatMulInteger(q(x), q(W)) in int32) * scale(x) * scale(W) + b; returns W's dB."""
        given, weight, graph = node.inputs[0], node.inputs[1], node.graph
        if given is None or weight is None or not isinstance(graph, ir.Graph):
            raise ValueError(f"{node.name} cannot be quantized")
        stored = self._weight(graph, weight, transposed=bool(integer_attributes(node).get("transB", 0)))
        base = weight.name or "weight"
        x, x_scale, x_zero = self._quantize(node, given)
        product = self._node("MatMulInteger", [x, stored.integers, x_zero], base)
        cast = self._node("Cast", [product.outputs[0]], base, to=ir.DataType.FLOAT.value)
        both = self._node("Mul", [x_scale, stored.scale], base)
        result = self._node("Mul", [cast.outputs[0], both.outputs[0]], base)
        new = [product, cast, both, result]
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            new.append(self._node("Add", [result.outputs[0], node.inputs[2]], base))
        self._replace(node, new, [weight])
        return stored.sqnr_db

    def _weight(self, graph: ir.Graph, weight: ir.Value, *, transposed: bool) -> "_Stored":
        """A matrix as integers, once for all products that share it: a recurrence that was unrolled has many."""
        known = self.stored.get((graph, weight, transposed))
        if known is not None:
            return known
        tensor, base = constant_of(weight), weight.name or "weight"
        if tensor is None:
            raise ValueError(f"{base} is no constant")
        values = as_numpy(tensor)
        require_finite(base, values)
        values = np.ascontiguousarray(values.T if transposed else values)
        made = quantize_weight(values, (1,), bits=self.weight_bits)
        stored = _Stored(
            integers=self._constant(graph, f"{base}_int8", made.integers),
            scale=self._constant(graph, f"{base}_scale", made.parameters.scale.reshape(-1)),
            sqnr_db=made.sqnr_db,
        )
        self.stored[graph, weight, transposed] = stored
        return stored

    def lstm(self, node: ir.Node) -> float:
        """LSTM with its two matrices as int8, transposed as the kernel reads them, one scale per gate row."""
        graph = node.graph
        if not isinstance(graph, ir.Graph):
            raise ValueError(f"{node.name} stands in no graph")
        inputs: list[ir.Value | None] = [*node.inputs, *[None] * (8 - len(node.inputs))]
        extra: list[ir.Value | None] = []
        worst, old = float("inf"), [value for value in node.inputs[1:3] if value is not None]
        for index in (1, 2):
            value = inputs[index]
            tensor = constant_of(value)
            if value is None or tensor is None:
                raise ValueError(f"{node.name} has no constant weight")
            weight = as_numpy(tensor)
            require_finite(value.name or "", weight)
            made = quantize_weight(weight, (0, 1), bits=self.weight_bits)
            worst = min(worst, made.sqnr_db)
            base, scale = value.name or "weight", made.parameters.scale[..., 0]
            inputs[index] = self._constant(
                graph, f"{base}_int8", np.ascontiguousarray(made.integers.transpose(0, 2, 1))
            )
            extra += [
                self._constant(graph, f"{base}_scale", scale),
                self._constant(graph, f"{base}_zero_point", np.zeros(scale.shape, np.int8)),
            ]
        new = ir.Node(
            _MICROSOFT,
            "DynamicQuantizeLSTM",
            [*inputs, *extra],
            [attribute for name, attribute in node.attributes.items() if name != "layout"],
            num_outputs=len(node.outputs),
            name=node.name,
        )
        for output, before in zip(new.outputs, node.outputs, strict=True):
            output.name, output.type, output.shape = (
                self.names(before.name or "state"),
                before.type,
                before.shape,
            )
        graph.insert_before(node, new)
        self._take_over(graph, node, new.outputs, old)
        return worst

    def _quantize(self, node: ir.Node, given: ir.Value) -> tuple[ir.Value, ...]:
        """DynamicQuantizeLinear of an activation, once for all products of the same graph that read it."""
        graph = node.graph
        known = self.quantized.get(given)
        if known is not None and known[0].graph is graph:
            return known
        new = ir.Node(
            "", "DynamicQuantizeLinear", [given], num_outputs=3, name=self.names(f"{given.name}_quantize")
        )
        for output, suffix in zip(new.outputs, ("uint8", "scale", "zero_point"), strict=True):
            output.name = self.names(f"{given.name}_{suffix}")
        producer = given.producer()
        if graph is not None and producer is not None and producer.graph is graph:
            graph.insert_after(producer, [new])
        elif graph is not None:
            graph.insert_before(graph[0], [new])
        self.quantized[given] = tuple(new.outputs)
        return self.quantized[given]

    def _replace(self, node: ir.Node, new: list[ir.Node], old: list[ir.Value]) -> None:
        graph, result = node.graph, new[-1].outputs[0]
        if not isinstance(graph, ir.Graph):
            raise ValueError(f"{node.name} stands in no graph")
        new[0].name = node.name
        result.type, result.shape = node.outputs[0].type, node.outputs[0].shape
        graph.insert_before(node, new)
        self._take_over(graph, node, [result], old)

    def _take_over(
        self, graph: ir.Graph, node: ir.Node, results: Sequence[ir.Value], old: list[ir.Value]
    ) -> None:
        """Let new values stand for a node's outputs, under the same names, and remove it with its weights."""
        for before, after in zip(node.outputs, results, strict=True):
            name = before.name
            ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
            before.name, after.name = None, name
        graph.remove(node, safe=True)
        for value in old:
            owner = value.graph
            if not value.uses() and isinstance(owner, ir.Graph) and value.name in owner.initializers:
                del owner.initializers[value.name or ""]

    def _constant(self, graph: ir.Graph, name: str, array: "np.ndarray[Any, Any]") -> ir.Value:
        tensor = ir.tensor(array)
        value = ir.Value(
            name=self.names(name),
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(array.shape),
            const_value=tensor,
        )
        graph.register_initializer(value)
        return value

    def _node(self, op_type: str, inputs: Sequence[ir.Value], base: str, **attributes: int) -> ir.Node:
        name = self.names(f"{base}_{op_type.lower()}")
        node = ir.node(op_type, inputs, dict(attributes) or None, name=name)
        node.outputs[0].name = name
        return node
