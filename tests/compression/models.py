"""Small models for tests, and their summaries."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compression.summary import LayerSummary, ModelSummary, TensorSummary, WeightSummary


def small_model(path: Path, *, seed: int = 0, dtype: type = np.float32, opset: int = 17) -> Path:
    """Conv(3, 8) - BatchNormalization - Relu - Conv(8, 8) - pool - Flatten - Gemm(8, 10): image to logits.

    The batch axis is free. Layer names: conv1, bn1, conv2, fc.
    """
    rng = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((rng.normal(size=shape) * 0.3).astype(dtype), name)

    scale = [
        numpy_helper.from_array(rng.uniform(0.5, 1.5, 8).astype(dtype), f"bn1.{name}")
        for name in ("gamma", "var")
    ]
    shift = [weight("bn1.beta", 8), weight("bn1.mean", 8)]
    nodes = [
        helper.make_node("Conv", ["image", "conv1.w", "conv1.b"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node(
            "BatchNormalization", ["c1", "bn1.gamma", "bn1.beta", "bn1.mean", "bn1.var"], ["b1"], name="bn1"
        ),
        helper.make_node("Relu", ["b1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "conv2.w", "conv2.b"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "fc.w", "fc.b"], ["logits"], name="fc", transB=1),
    ]
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", element, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", element, ["batch", 10])],
        [
            weight("conv1.w", 8, 3, 3, 3),
            weight("conv1.b", 8),
            *scale,
            *shift,
            weight("conv2.w", 8, 8, 3, 3),
            weight("conv2.b", 8),
            weight("fc.w", 10, 8),
            weight("fc.b", 10),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def weights_of(path: Path) -> dict[str, np.ndarray]:
    """Every initializer by name, as plain onnx reads it: independent of compression.graph."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def images(samples: int = 16, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(samples, 3, 8, 8)).astype(np.float32)


def save_dataset(path: Path, *, samples: int = 16, labels: bool = True) -> Path:
    arrays = {"image": images(samples)}
    if labels:
        arrays["labels"] = np.random.default_rng(2).integers(0, 10, samples)
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path


def layer_summary(
    name: str, op_type: str, *shape: int, dtype: str = "float32", zeros: int = 0
) -> LayerSummary:
    size = int(np.prod(shape)) * (1 if dtype == "int8" else 4)
    weight = WeightSummary(name=f"{name}.w", dtype=dtype, shape=shape, size_bytes=size, zeros=zeros)
    return LayerSummary(name=name, op_type=op_type, scope="", weights=(weight,), macs=1000)


def model_summary(*layers: LayerSummary, **changes: object) -> ModelSummary:
    size = sum(layer.size_bytes for layer in layers)
    summary = ModelSummary(
        ir_version=8,
        opset=17,
        domains={"": 17},
        producer="test",
        inputs=(TensorSummary(name="image", dtype="float32", shape=("batch", 3, 8, 8)),),
        outputs=(TensorSummary(name="logits", dtype="float32", shape=("batch", 10)),),
        parameters=sum(w.elements for layer in layers for w in layer.weights),
        nonzero_parameters=sum(w.elements - w.zeros for layer in layers for w in layer.weights),
        size_bytes=size + 500,
        weight_bytes=size,
        macs=1000 * len(layers),
        macs_complete=True,
        operators={layer.op_type: 1 for layer in layers},
        layers=layers,
        subgraphs=0,
        functions=0,
        quantized=False,
        external_data=False,
    )
    return summary.model_copy(update=changes)
