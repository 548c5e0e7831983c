"""ONNX files for tests, made here."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save_mlp(path: Path, *, width: int = 32, depth: int = 2, seed: int = 0) -> Path:
    """MatMul and Relu, `depth` times, on `[batch, width]`."""
    random = np.random.default_rng(seed)
    nodes, weights, value = [], [], "x"
    for index in range(depth):
        weight = random.normal(0, width**-0.5, (width, width)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{index}"], [f"m{index}"], name=f"mul{index}"))
        value = "y" if index == depth - 1 else f"r{index}"
        nodes.append(helper.make_node("Relu", [f"m{index}"], [value], name=f"relu{index}"))
    shape = ["batch", width]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def save_samples(path: Path, *, width: int = 32, count: int = 64) -> Path:
    np.savez(path, x=np.random.default_rng(1).normal(size=(count, width)).astype(np.float32))
    return path
