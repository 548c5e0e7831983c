"""An autoencoder in numbers, and as ONNX graphs: one that trains, and the encoder and decoder that remain.

    code = f(x W + b), reconstruction = code V + c

f is the rectifier, the sigmoid or nothing; with k-sparse units only the k largest entries of a code stay. With
tied weights V is the transpose of W.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from compression.autoencoder.layout import Layout

Array = npt.NDArray[Any]
Activation = Literal["relu", "sigmoid", "identity"]
OPSET = 18
IR_VERSION = 9
ROWS, CODE, RECONSTRUCTION = "rows", "code", "reconstruction"
OPERATORS = {"relu": "Relu", "sigmoid": "Sigmoid"}


@dataclass(frozen=True, kw_only=True)
class Codec:
    """Weights, float32: `encode` [features, hidden], `decode` [hidden, features] or None where it is tied."""

    encode: Array
    encode_bias: Array
    decode: Array | None
    decode_bias: Array
    activation: Activation
    kept: int | None = None
    """How many entries of a code stay; None for all."""

    @property
    def hidden(self) -> int:
        return int(self.encode.shape[1])

    @property
    def decoding(self) -> Array:
        return self.encode.T if self.decode is None else self.decode

    def standardised(self, mean: Array, scale: float) -> "Codec":
        """A codec for raw rows x that does what this one does for (x - mean) / scale. It is not tied."""
        encode = self.encode / scale
        return Codec(
            encode=encode.astype(np.float32),
            encode_bias=(self.encode_bias - mean @ encode).astype(np.float32),
            decode=(self.decoding * scale).astype(np.float32),
            decode_bias=(self.decode_bias * scale + mean).astype(np.float32),
            activation=self.activation,
            kept=self.kept,
        )


def fresh_codec(
    features: int, hidden: int, *, tied: bool, activation: Activation, kept: int | None, seed: int
) -> Codec:
    """Weights from U(-r, r) with r = sqrt(6 / (features + hidden)) (Glorot and Bengio 2010), biases zero.

    The decoder begins as the encoder's transpose, its rows of length one.
    """
    rng = np.random.default_rng(seed)
    spread = np.sqrt(6 / (features + hidden))
    encode = rng.uniform(-spread, spread, (features, hidden))
    encode /= np.maximum(np.linalg.norm(encode, axis=0, keepdims=True), 1e-12)
    return Codec(
        encode=encode.astype(np.float32),
        encode_bias=np.zeros(hidden, np.float32),
        decode=None if tied else np.ascontiguousarray(encode.T.astype(np.float32)),
        decode_bias=np.zeros(features, np.float32),
        activation=activation,
        kept=kept,
    )


def training_graph(codec: Codec) -> ir.Model:
    """From `rows` [rows, features] to `reconstruction` and `code`; weights named as the codec's fields."""
    graph = _Graph()
    given = graph.input(ROWS, ["rows", codec.encode.shape[0]])
    encode = graph.stored("encode", codec.encode)
    code = graph.encoded(given, encode, codec, CODE)
    decode = (
        graph.node("Transpose", [encode], perm=[1, 0])
        if codec.decode is None
        else graph.stored("decode", codec.decode)
    )
    result = graph.decoded(code, decode, codec, RECONSTRUCTION)
    return graph.model("autoencoder", [given], [(result, codec.encode.shape[0]), (code, codec.hidden)])


def encoder_graph(codec: Codec, layout: Layout, name: str) -> ir.Model:
    """From samples [batch, *shape] under `name` to `code` [batch, ..., hidden], positions before the code."""
    graph = _Graph()
    given = graph.input(name, ["batch", *layout.shape])
    rows = graph.features_last(given, layout)
    code = graph.encoded(rows, graph.stored("encode", codec.encode), codec, CODE)
    return graph.model("encoder", [given], [(code, codec.hidden)], between=_between(layout))


def decoder_graph(codec: Codec, layout: Layout, name: str) -> ir.Model:
    """From `code` [batch, ..., hidden] to samples [batch, *shape] under `name`."""
    graph = _Graph()
    given = graph.input(CODE, ["batch", *_between(layout), codec.hidden])
    rows = graph.decoded(given, graph.stored("decode", codec.decoding), codec, None)
    result = graph.features_first(rows, layout, name)
    return graph.model("decoder", [given], [(result, layout.shape[-1])], between=layout.shape[:-1])


def _between(layout: Layout) -> tuple[int, ...]:
    """The sizes of a code's axes between the batch and the code itself."""
    if layout.axis is None:
        return ()
    return tuple(size for axis, size in enumerate(layout.shape, start=1) if axis != layout.axis)


class _Graph:
    """Collects nodes and stored tensors."""

    def __init__(self) -> None:
        self._nodes: list[ir.Node] = []
        self._stored: list[ir.Value] = []

    def input(self, name: str, shape: Sequence[int | str]) -> ir.Value:
        return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))

    def stored(self, name: str, array: Array) -> ir.Value:
        tensor = ir.Tensor(np.array(array, order="C"), name=name)
        value = ir.Value(
            name=name, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype)
        )
        self._stored.append(value)
        return value

    def node(
        self, kind: str, inputs: Sequence[ir.Value], name: str | None = None, **attributes: Any
    ) -> ir.Value:
        node = ir.node(kind, inputs, attributes, name=f"{kind.lower()}_{len(self._nodes)}")
        node.outputs[0].name = name or f"{node.name}:out"
        self._nodes.append(node)
        return node.outputs[0]

    def encoded(self, rows: ir.Value, weight: ir.Value, codec: Codec, name: str) -> ir.Value:
        product = self.node("MatMul", [rows, weight])
        operator = OPERATORS.get(codec.activation)
        sparse = codec.kept is not None
        bias = self.stored("encode_bias", codec.encode_bias)
        value = self.node("Add", [product, bias], None if operator or sparse else name)
        if operator is not None:
            value = self.node(operator, [value], None if sparse else name)
        return self.largest(value, codec.kept, name) if codec.kept is not None else value

    def largest(self, value: ir.Value, kept: int, name: str) -> ir.Value:
        """The `kept` largest entries of each row; the others become zero. Of equal ones more may stay."""
        count = self.stored("kept", np.asarray([kept], np.int64))
        top = ir.node("TopK", [value, count], {"axis": -1}, num_outputs=2, name="largest")
        for output, end in zip(top.outputs, ("values", "indices"), strict=True):
            output.name = f"largest:{end}"
        self._nodes.append(top)
        axes = self.stored("code_axis", np.asarray([-1], np.int64))
        least = self.node("ReduceMin", [top.outputs[0], axes], keepdims=1)
        stays = self.node("GreaterOrEqual", [value, least])
        return self.node("Where", [stays, value, self.stored("nothing", np.zeros((), np.float32))], name)

    def decoded(self, code: ir.Value, weight: ir.Value, codec: Codec, name: str | None) -> ir.Value:
        product = self.node("MatMul", [code, weight])
        return self.node("Add", [product, self.stored("decode_bias", codec.decode_bias)], name)

    def features_last(self, value: ir.Value, layout: Layout) -> ir.Value:
        if layout.axis is None:
            return value if len(layout.shape) == 1 else self.node("Flatten", [value], axis=1)
        rank = len(layout.shape) + 1
        if layout.axis == rank - 1:
            return value
        order = [axis for axis in range(rank) if axis != layout.axis]
        return self.node("Transpose", [value], perm=[*order, layout.axis])

    def features_first(self, value: ir.Value, layout: Layout, name: str) -> ir.Value:
        """The way back; an Identity where there is none to go."""
        rank = len(layout.shape) + 1
        if layout.axis is None and len(layout.shape) != 1:
            sizes = self.stored("sample_shape", np.asarray([0, *layout.shape], np.int64))
            return self.node("Reshape", [value, sizes], name)
        if layout.axis is not None and layout.axis < rank - 1:
            order = list(range(rank - 1))
            order.insert(layout.axis, rank - 1)
            return self.node("Transpose", [value], name, perm=order)
        return self.node("Identity", [value], name)

    def model(
        self,
        name: str,
        inputs: Sequence[ir.Value],
        outputs: Sequence[tuple[ir.Value, int]],
        *,
        between: Sequence[int] = (),
    ) -> ir.Model:
        first = inputs[0].shape
        assert first is not None
        for value, size in outputs:
            value.type = ir.TensorType(ir.DataType.FLOAT)
            value.shape = ir.Shape([first[0], *between, size])
        graph = ir.Graph(
            inputs,
            [value for value, _ in outputs],
            nodes=self._nodes,
            initializers=self._stored,
            opset_imports={"": OPSET},
            name=name,
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="modelpress")
