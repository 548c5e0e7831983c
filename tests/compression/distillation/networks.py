"""Networks for the scikit-learn digits, random or trained, and the digits themselves."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

FLOAT = TensorProto.FLOAT


class Writer:
    """Writes a graph node by node, with He-initialised weights."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []

    def weight(self, name: str, *shape: int) -> str:
        fan_in = float(np.prod(shape[1:])) or 1.0
        array = self.rng.normal(size=shape) * np.sqrt(2 / fan_in) if len(shape) > 1 else np.zeros(shape)
        self.stored.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def node(self, op_type: str, inputs: list[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [f"{name}:out"], name=name, **attributes))
        return f"{name}:out"

    def dense(self, x: str, name: str, inputs: int, outputs: int) -> str:
        weights = [self.weight(f"{name}.w", outputs, inputs), self.weight(f"{name}.b", outputs)]
        return self.node("Gemm", [x, *weights], name, transB=1)

    def conv(self, x: str, name: str, inputs: int, outputs: int) -> str:
        weights = [self.weight(f"{name}.w", outputs, inputs, 3, 3), self.weight(f"{name}.b", outputs)]
        return self.node("Conv", [x, *weights], name, pads=[1, 1, 1, 1])

    def relu(self, x: str, name: str) -> str:
        return self.node("Relu", [x], name)

    def save(self, path: Path, logits: str, input_shape: tuple[int, ...]) -> Path:
        for node in self.nodes:
            node.output[:] = ["logits" if name == logits else name for name in node.output]
        graph = helper.make_graph(
            self.nodes,
            "digits",
            [helper.make_tensor_value_info("image", FLOAT, ["batch", *input_shape])],
            [helper.make_tensor_value_info("logits", FLOAT, ["batch", 10])],
            self.stored,
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return path


def residual_network(path: Path, *, width: int = 24, blocks: int = 4, seed: int = 0) -> Path:
    """Gemm(64, width) - Relu - blocks of x + Gemm(Relu(Gemm(x))) - Relu - Gemm(width, 10).

    The block `b0` adds next to nothing; the ones after it ever more.
    """
    writer = Writer(seed)
    x = writer.relu(writer.dense("image", "stem", 64, width), "stem.relu")
    for index in range(blocks):
        name = f"b{index}"
        inner = writer.relu(writer.dense(x, f"{name}.first", width, width), f"{name}.relu")
        x = writer.node("Add", [writer.dense(inner, f"{name}.second", width, width), x], f"{name}.add")
    for tensor in writer.stored:
        if tensor.name.endswith("second.w"):
            scale = 0.01 + 0.1 * int(tensor.name[1])
            array = numpy_helper.to_array(tensor) * np.float32(scale)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return writer.save(path, writer.dense(writer.relu(x, "last.relu"), "head", width, 10), (64,))


def convolutional_network(path: Path, *, width: int = 16, seed: int = 0) -> Path:
    """Two convolutions with pooling between them, a hidden layer, 10 logits; images [1, 8, 8]."""
    writer = Writer(seed)
    x = writer.relu(writer.conv("image", "conv1", 1, width), "relu1")
    x = writer.node("MaxPool", [x], "pool1", kernel_shape=[2, 2], strides=[2, 2])
    x = writer.relu(writer.conv(x, "conv2", width, 2 * width), "relu2")
    x = writer.node("GlobalAveragePool", [x], "pool2")
    x = writer.node("Flatten", [x], "flatten")
    x = writer.relu(writer.dense(x, "hidden", 2 * width, 4 * width), "relu3")
    return writer.save(path, writer.dense(x, "head", 4 * width, 10), (1, 8, 8))


def digits(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """All 1797 digits in a seeded order: pixels [N, 64] in 0..1 as float32, and labels."""
    found = load_digits()
    order = np.random.default_rng(seed).permutation(len(found.target))
    return (found.data[order] / 16).astype(np.float32), found.target[order].astype(np.int64)
