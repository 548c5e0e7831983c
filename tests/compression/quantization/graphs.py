"""Models that weight-only storage and integer kernels have to cope with, each built by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from compression.graph import load, save
from compression.method import Role, StepContext
from compression.summary import TensorSummary

RNG = np.random.default_rng(7)


def weight(name: str, *shape: int, dtype: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(
        (np.random.default_rng(len(name)).normal(size=shape) * 0.2).astype(dtype), name
    )


def build(
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto],
    inputs: Sequence[tuple[str, int, Sequence[Any]]],
    outputs: Sequence[tuple[str, int, Sequence[Any]]],
    *,
    opset: int = 13,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        list(initializers),
    )
    domains = [helper.make_opsetid("", opset), *(helper.make_opsetid("f", 1) for _ in functions[:1])]
    return helper.make_model(graph, opset_imports=domains, functions=list(functions), ir_version=8)


X = ("x", TensorProto.FLOAT, ["n", 64])
Y = ("y", TensorProto.FLOAT, ["n", 64])


def plain(opset: int = 13) -> onnx.ModelProto:
    return build(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")],
        [weight("w", 64, 64)],
        [X],
        [Y],
        opset=opset,
    )


def half_quantized() -> onnx.ModelProto:
    """Four fifths of its bytes are int8 behind a DequantizeLinear, the rest is floats."""
    integers = np.random.default_rng(5).integers(-127, 128, (64, 512)).astype(np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"], name="dequantize"),
        helper.make_node("MatMul", ["x", "w"], ["h"], name="quantized"),
        helper.make_node("MatMul", ["h", "v"], ["y"], name="floats"),
    ]
    stored = [numpy_helper.from_array(integers, "q"), numpy_helper.from_array(np.float32(0.01), "scale")]
    return build(nodes, [*stored, weight("v", 512, 4)], [X], [("y", TensorProto.FLOAT, ["n", 4])])


def shared() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["y"], name="second"),
    ]
    return build(nodes, [weight("w", 64, 64)], [X], [Y])


def branches() -> onnx.ModelProto:
    def body(name: str) -> onnx.GraphProto:
        node = helper.make_node("MatMul", ["x", f"w{name}"], [f"y{name}"], name=f"m{name}")
        out = helper.make_tensor_value_info(f"y{name}", TensorProto.FLOAT, ["n", 64])
        return helper.make_graph([node], name, [], [out], [weight(f"w{name}", 64, 64)])

    node = helper.make_node("If", ["c"], ["y"], name="if", then_branch=body("a"), else_branch=body("bb"))
    return build([node], [], [X, ("c", TensorProto.BOOL, [])], [Y])


def function() -> onnx.ModelProto:
    inner = helper.make_function(
        "f",
        "F",
        ["p"],
        ["q"],
        [
            helper.make_node("Constant", [], ["w"], value=weight("w", 64, 64)),
            helper.make_node("MatMul", ["p", "w"], ["q"], name="inner"),
        ],
        [helper.make_opsetid("", 13)],
    )
    return build(
        [helper.make_node("F", ["x"], ["y"], domain="f", name="call")], [], [X], [Y], functions=[inner]
    )


def half() -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="m")
    wide = [("x", TensorProto.FLOAT16, ["n", 64])], [("y", TensorProto.FLOAT16, ["n", 64])]
    return build([node], [weight("w", 64, 64, dtype=np.float16)], *wide)


def recurrent(directions: int = 2) -> onnx.ModelProto:
    size, way = 32, {"direction": "bidirectional"} if directions == 2 else {}
    node = helper.make_node("LSTM", ["x", "w", "r", "b"], ["y", "h"], name="lstm", hidden_size=size, **way)
    weights = [weight("w", directions, 4 * size, 16), weight("r", directions, 4 * size, size)]
    outputs = [
        ("y", TensorProto.FLOAT, ["t", directions, 1, size]),
        ("h", TensorProto.FLOAT, [directions, 1, size]),
    ]
    return build(
        [node],
        [*weights, weight("b", directions, 8 * size)],
        [("x", TensorProto.FLOAT, ["t", 1, 16])],
        outputs,
        opset=11,
    )


def embedding() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="embed"),
        helper.make_node("MatMul", ["e", "w"], ["y"], name="m"),
    ]
    weights = [weight("table", 100, 32), weight("w", 32, 64)]
    return build(nodes, weights, [("ids", TensorProto.INT64, ["n"])], [Y])


def convolutions(*, transposed: bool = False, group: int = 1) -> onnx.ModelProto:
    kind = "ConvTranspose" if transposed else "Conv"
    shape = (8, 16 // group, 3, 3) if transposed else (16, 8 // group, 3, 3)
    node = helper.make_node(kind, ["x", "w", "b"], ["y"], name="c", group=group)
    image = ("x", TensorProto.FLOAT, ["n", 8, 10, 10])
    out = ("y", TensorProto.FLOAT, ["n", 16, None, None])
    return build([node], [weight("w", *shape), weight("b", 16)], [image], [out])


def residual(opset: int = 11) -> onnx.ModelProto:
    """Conv-Relu-Conv-Add-Relu-MaxPool-Conv-GlobalAveragePool-Flatten-Gemm: what QDQ placement meets in a
    network."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="c1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w22", "b2"], ["c2"], name="c2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["a"]),
        helper.make_node("Relu", ["a"], ["r2"]),
        helper.make_node("MaxPool", ["r2"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "w333"], ["c3"], name="c3", group=32),
        helper.make_node("GlobalAveragePool", ["c3"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w4444", "b4"], ["y"], name="fc", transB=1),
    ]
    weights = [
        weight("w1", 32, 3, 3, 3),
        weight("b1", 32),
        weight("w22", 32, 32, 3, 3),
        weight("b2", 32),
        weight("w333", 32, 1, 3, 3),
        weight("w4444", 40, 32),
        weight("b4", 40),
    ]
    image = ("x", TensorProto.FLOAT, ["n", 3, 16, 16])
    return build(nodes, weights, [image], [("y", TensorProto.FLOAT, ["n", 40])], opset=opset)


ALL = {
    "plain": plain,
    "opset7": lambda: plain(7),
    "shared": shared,
    "branches": branches,
    "function": function,
    "half": half,
    "recurrent": recurrent,
    "embedding": embedding,
    "conv": convolutions,
    "grouped": lambda: convolutions(group=2),
    "depthwise": lambda: convolutions(group=8),
    "transposed": lambda: convolutions(transposed=True),
    "residual": residual,
}


def opened(model: onnx.ModelProto, folder: Path) -> ir.Model:
    onnx.save(model, folder / "original.onnx")
    return load(folder / "original.onnx", workdir=folder / "load")


def feeds(model: onnx.ModelProto, samples: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made: dict[str, np.ndarray] = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [dim.dim_value or samples for dim in kind.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if dtype == np.bool_:
            made[value.name] = np.array(True)
        elif np.issubdtype(dtype, np.integer):
            made[value.name] = rng.integers(0, 100, shape).astype(dtype)
        else:
            made[value.name] = rng.normal(size=shape).astype(dtype)
    return made


def answers(path: Path, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, given))


def written(model: ir.Model, folder: Path) -> Path:
    return save(model, folder / "result.onnx")[0]


class Samples:
    """Stands in for a dataset: single samples of a model's inputs."""

    def __init__(self, model: onnx.ModelProto, count: int) -> None:
        self.items = [feeds(model, seed=seed) for seed in range(count)]

    def __len__(self) -> int:
        return len(self.items)

    def feeds(
        self, inputs: Sequence[TensorSummary], batch_size: int, limit: int | None = None, start: int = 0
    ):
        yield from self.items[start : None if limit is None else start + limit]


def context(folder: Path, model: onnx.ModelProto | None = None, samples: int = 8) -> StepContext:
    work = folder / "work"
    work.mkdir(exist_ok=True)
    data = {} if model is None else {Role.CALIBRATION: Samples(model, samples)}
    return StepContext(workdir=work, data=data, device="cpu", threads=1, seed=0, report=lambda *_: None)  # type: ignore[arg-type]
