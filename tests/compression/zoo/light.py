"""The large networks that come with the onnx wheel without their weights, filled with random ones.

`NAMES` lists them; `filled(name)` gives a model whose weights are stored tensors instead of ConstantOfShape.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
PREFIX = "light_"
NAMES = tuple(sorted(path.stem.removeprefix(PREFIX) for path in FOLDER.glob(f"{PREFIX}*.onnx")))
IMAGE = (1, 3, 224, 224)


def filled(name: str, *, seed: int = 0) -> onnx.ModelProto:
    """Weights are drawn so that signals keep their size from layer to layer (He et al., arXiv:1502.01852)."""
    model = onnx.load(FOLDER / f"{PREFIX}{name}.onnx")
    random = np.random.default_rng(seed)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    positive = _positive(model.graph)
    kept = []
    for node in model.graph.node:
        shape = shapes.get(node.input[0]) if node.op_type == "ConstantOfShape" else None
        if shape is None:
            kept.append(node)
            continue
        array = _weight(random, shape.tolist(), node.output[0] in positive)
        model.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def feeds(model: onnx.ModelProto, *, seed: int = 0) -> dict[str, np.ndarray]:
    """An image for the network's one input."""
    stored = {tensor.name for tensor in model.graph.initializer}
    (name,) = (item.name for item in model.graph.input if item.name not in stored)
    return {name: np.random.default_rng(seed).normal(size=IMAGE).astype(np.float32)}


def _positive(graph: onnx.GraphProto) -> set[str]:
    """Scales and variances of BatchNormalization."""
    norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
    return {node.input[index] for node in norms for index in (1, 4)}


def _weight(random: np.random.Generator, shape: list[int], positive: bool) -> np.ndarray:
    if positive:
        return random.uniform(0.8, 1.2, shape).astype(np.float32)
    inputs = int(np.prod(shape[1:])) if len(shape) > 1 else 400
    return (random.normal(size=shape) * (2 / inputs) ** 0.5).astype(np.float32)
