"""ONNX's own cases of every operator, each between two matrix products: whatever can be cut of it is proven.

The first product makes the units along one axis of one input of the operator; the second reads all that comes
out. A rule that ties, mends or leaves out the wrong thing fails here.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from onnx.backend.test.loader import load_model_tests

from compression.errors import CompressionError
from compression.graph import load
from compression.graph.channels import TOLERANCE, cut, find_groups, prove
from compression.runtime import open_session, run

MAX_ELEMENTS = 4000
MAX_OPSET = 25
CHOICES = 2


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("widths", [False, True])
def test_every_operator_between_two_products(widths, tmp_path):
    proven: set[str] = set()
    failed: dict[str, float] = {}
    for name, path, feeds in sandwiches(tmp_path):
        found = cut_somehow(path, feeds, widths)
        if found is not None and found > TOLERANCE:
            failed[name] = found
        elif found is not None:
            proven.add(name)
    assert not failed
    assert len(proven) > 1400


def cut_somehow(path: Path, feeds: dict[str, np.ndarray], widths: bool) -> float | None:
    """The worst error of some cuts; None where nothing can be cut, or onnxruntime does not run the model."""
    original = load(path)
    groups = find_groups(original, widths=widths).groups
    if not groups or not _runs(original, feeds):
        return None
    worst = 0.0
    for seed in range(CHOICES):
        random, model = np.random.default_rng(seed), load(path)
        chosen = {
            group.id: random.permutation(group.size)[: random.integers(1, group.size)] for group in groups
        }
        cut(model, chosen, widths=widths)
        worst = max(worst, prove(original, model, chosen, feeds, widths=widths))
    return worst


def _runs(model: ir.Model, feeds: dict[str, np.ndarray]) -> bool:
    try:
        results = run(open_session(model, device="cpu", threads=1, optimize=False), feeds)
    except CompressionError:
        return False
    return all(np.isfinite(result).all() for result in results.values())


def sandwiches(folder: Path) -> Iterator[tuple[str, Path, dict[str, np.ndarray]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    for case in cases:
        model = case.model
        inputs, outputs = case.data_sets[0]
        if len(model.graph.node) > 3 or not _is_fit(model, inputs, outputs):
            continue
        for index, array in enumerate(inputs):
            for axis, size in enumerate(array.shape if array.dtype == np.float32 else ()):
                if size > 1:
                    name = f"{case.name} input {index} axis {axis}"
                    path = folder / "case.onnx"
                    path.write_bytes(_sandwich(model, inputs, outputs[0], index, axis).SerializeToString())
                    yield name, path, {"fed": array}


def _is_fit(model: onnx.ModelProto, inputs: list, outputs: list) -> bool:
    """Plain tensors everywhere, not too many, floats among them."""
    plain = all(isinstance(array, np.ndarray) and array.dtype != object for array in (*inputs, *outputs))
    opsets = [item.version for item in model.opset_import if item.domain == ""]
    if not plain or not inputs or not outputs or len(opsets) != 1 or opsets[0] > MAX_OPSET:
        return False
    small = all(0 < array.size <= MAX_ELEMENTS for array in (*inputs, *outputs))
    return small and len(inputs) == len(model.graph.input) and outputs[0].dtype in (np.float32, np.float64)


def _sandwich(
    model: onnx.ModelProto, inputs: list, output: np.ndarray, index: int, axis: int
) -> onnx.ModelProto:
    array, random = inputs[index], np.random.default_rng(0)
    size, rank = array.shape[axis], array.ndim
    name, last = model.graph.input[index].name, model.graph.output[0].name
    order = [*(other for other in range(rank) if other != axis), axis]
    mixing = (np.eye(size) + random.normal(size=(size, size)) * 0.1).astype(np.float32)
    stored = {
        "first.w": mixing,
        "last.w": random.normal(size=(output.size, 3)).astype(np.float32),
        "last.shape": np.asarray([1, -1]),
        **{
            item.name: value
            for item, value in zip(model.graph.input, inputs, strict=True)
            if item.name != name
        },
    }
    nodes = [
        helper.make_node("Transpose", ["fed"], ["fed.turned"], perm=order),
        helper.make_node("MatMul", ["fed.turned", "first.w"], ["fed.mixed"], name="first"),
        helper.make_node("Transpose", ["fed.mixed"], [name], perm=np.argsort(order).tolist()),
        *model.graph.node,
        helper.make_node("Cast", [last], ["out.float"], to=1),
        helper.make_node("Reshape", ["out.float", "last.shape"], ["out.flat"]),
        helper.make_node("MatMul", ["out.flat", "last.w"], ["read"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "sandwich",
        [helper.make_tensor_value_info("fed", onnx.TensorProto.FLOAT, array.shape)],
        [helper.make_tensor_value_info("read", onnx.TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in stored.items()],
    )
    return helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=10, functions=model.functions
    )
