"""Runs models in onnxruntime directly, as the reference that knows nothing of compression.graph."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from compression.graph import clean, interface, load, save

SILENT = 4


def answers(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def assert_same(first: dict[str, np.ndarray], second: dict[str, np.ndarray], rtol: float = 1e-5) -> None:
    """Equal up to rounding, relative to the largest entry."""
    assert list(first) == list(second)
    for name, array in first.items():
        assert array.dtype == second[name].dtype
        limit = rtol * max(float(np.abs(array).max(initial=0)), 1e-6) if array.dtype.kind == "f" else 0
        np.testing.assert_allclose(second[name], array, rtol=0, atol=limit)


def write(path: Path, text: str, **weights: np.ndarray) -> Path:
    """A model in ONNX's text form, with initializers."""
    model = onnx.parser.parse_model(text)
    for name, array in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    path.write_bytes(model.SerializeToString())
    return path


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def cleaned(path: Path, feeds: dict[str, np.ndarray], rtol: float = 1e-5) -> Counter[str]:
    """Cleans and saves, holds the result to the original, and counts the operators that are left."""
    model = load(path)
    before = interface(model)
    model = clean(model)
    assert interface(model) == before
    (saved,) = save(model, path.with_name("cleaned.onnx"))
    assert_same(answers(path, feeds), answers(saved, feeds), rtol)
    return Counter(node.op_type for node in model.graph.all_nodes())
