"""float16 as the type that a model computes in."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from compression.quantization.narrow_floats import FLOAT16, overflow
from compression.quantization.storage import Names, as_numpy

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
        reason = overflow(as_numpy(value.const_value), FLOAT16)
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
