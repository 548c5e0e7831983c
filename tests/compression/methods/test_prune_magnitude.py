"""prune_magnitude against numpy by hand."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from pydantic import ValidationError

from compression import weight_targets
from compression.graph import load, save
from compression.method import StepContext, StepOutcome
from compression.methods.prune_magnitude import ZEROS_ONLY, PruneMagnitude, pattern_mask
from tests.compression.models import small_model, weights_of

KERNELS = ("conv1.w", "conv2.w", "fc.w")


def prune(path: Path, **parameters: Any) -> tuple[dict[str, np.ndarray], StepOutcome]:
    context = StepContext(
        workdir=path.parent, data={}, device="cpu", threads=1, seed=0, report=lambda fraction, message: None
    )
    outcome = PruneMagnitude(**parameters).apply(load(path), context)
    files = save(outcome.model, path.parent / "pruned.onnx")
    return weights_of(files[0]), outcome


def zeros(array: np.ndarray) -> int:
    return int(np.count_nonzero(array == 0))


@pytest.mark.parametrize("sparsity", [0.001, 0.3, 0.5, 0.97])
def test_global_is_one_cut_through_all(tmp_path: Path, sparsity: float) -> None:
    path = small_model(tmp_path / "m.onnx")
    before = weights_of(path)
    after, outcome = prune(path, sparsity=sparsity)
    flat = np.concatenate([np.abs(before[name]).ravel() for name in KERNELS])
    count = round(sparsity * flat.size)
    tau = np.sort(flat)[count]
    for name in KERNELS:
        np.testing.assert_array_equal(after[name], np.where(np.abs(before[name]) < tau, 0, before[name]))
    assert sum(zeros(after[name]) for name in KERNELS) == count
    assert outcome.details["zeros"] == count
    assert outcome.details["sparsity"] + outcome.details["density"] == pytest.approx(1)


def test_layer_scope_is_exact_in_every_layer(tmp_path: Path) -> None:
    after, outcome = prune(small_model(tmp_path / "m.onnx"), sparsity=0.5, scope="layer")
    assert [zeros(after[name]) for name in KERNELS] == [108, 288, 40]
    numbers = {entry.layer: entry.numbers for entry in outcome.layers}
    assert numbers["conv2"] == {"zeros": 288, "weights": 576, "sparsity": 0.5, "density": 0.5}


def test_threshold_is_strict(tmp_path: Path) -> None:
    path = small_model(tmp_path / "m.onnx")
    before = weights_of(path)
    tau = float(np.sort(np.abs(before["conv2.w"]).ravel())[100])
    after, _ = prune(path, threshold=tau)
    for name in KERNELS:
        np.testing.assert_array_equal(after[name], np.where(np.abs(before[name]) < tau, 0, before[name]))
    assert zeros(after["conv2.w"]) == 100


def test_biases_and_normalization_stay(tmp_path: Path) -> None:
    path = small_model(tmp_path / "m.onnx")
    before = weights_of(path)
    after, _ = prune(path, sparsity=0.9)
    for name in before.keys() - set(KERNELS):
        np.testing.assert_array_equal(after[name], before[name])


def test_zeros_that_are_there_count(tmp_path: Path) -> None:
    path = small_model(tmp_path / "m.onnx")
    first, _ = prune(path, sparsity=0.6)
    second, outcome = prune(tmp_path / "pruned.onnx", sparsity=0.5)
    for name in KERNELS:
        np.testing.assert_array_equal(second[name], first[name])
    assert outcome.details["sparsity"] == pytest.approx(0.6, abs=1e-3)


@pytest.mark.parametrize(
    ("shape", "axis"), [((6, 8, 3, 3), 1), ((8, 5), 0), ((5, 8), 1), ((2, 3, 12), 2), ((16,), 0)]
)
def test_pattern_by_hand(shape: tuple[int, ...], axis: int) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    mask = pattern_mask(values, axis, 2, 4)
    moved, masks = np.moveaxis(values, axis, -1), np.moveaxis(mask, axis, -1)
    for index in np.ndindex(moved.shape[:-1]):
        for start in range(0, shape[axis], 4):
            group = np.abs(moved[index][start : start + 4])
            assert masks[index][start : start + 4].tolist() == [bool(g < np.sort(group)[2]) for g in group]


def test_pattern_ties_go_to_the_first() -> None:
    assert pattern_mask(np.ones((1, 4), np.float32), 1, 1, 4).tolist() == [[True, True, True, False]]


def test_pattern_runs_along_the_input_channels(tmp_path: Path) -> None:
    path = small_model(tmp_path / "m.onnx")
    before = weights_of(path)
    after, outcome = prune(path, pattern="2:4")
    np.testing.assert_array_equal(after["conv1.w"], before["conv1.w"])
    groups = np.moveaxis(after["conv2.w"], 1, -1).reshape(-1, 4)
    assert (np.count_nonzero(groups, axis=1) == 2).all()
    assert (np.count_nonzero(after["fc.w"].reshape(-1, 4), axis=1) == 2).all()
    notes = {entry.layer: (entry.changed, entry.note) for entry in outcome.layers}
    assert notes["conv1"] == (False, "its input axis of 3 is no multiple of 4")


def matmul_model(path: Path, left: bool, weight: np.ndarray) -> Path:
    inputs = ["w", "x"] if left else ["x", "w"]
    element = helper.np_dtype_to_tensor_dtype(weight.dtype)
    shape = [weight.shape[1], "n"] if left else ["n", weight.shape[0]]
    graph = helper.make_graph(
        [helper.make_node("MatMul", inputs, ["y"], name="product")],
        "g",
        [helper.make_tensor_value_info("x", element, shape)],
        [
            helper.make_tensor_value_info(
                "y", element, [weight.shape[0], "n"] if left else ["n", weight.shape[1]]
            )
        ],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("left", [True, False])
def test_pattern_runs_along_k_on_either_side(tmp_path: Path, left: bool) -> None:
    weight = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
    after, _ = prune(matmul_model(tmp_path / "m.onnx", left, weight), pattern="1:4")
    rows = after["w"] if left else after["w"].T
    assert (np.count_nonzero(rows.reshape(-1, 4), axis=1) == 1).all()


def test_pattern_follows_a_transposed_weight(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    path = matmul_model(tmp_path / "m.onnx", False, weight.T.copy())
    model = onnx.load(path)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "stored"))
    model.graph.node.insert(0, helper.make_node("Transpose", ["stored"], ["w"], perm=[1, 0]))
    onnx.save(model, path)
    after, _ = prune(path, pattern="1:4")
    assert (np.count_nonzero(after["stored"].reshape(-1, 4), axis=1) == 1).all()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_every_float_type_keeps_its_type(tmp_path: Path, dtype: type) -> None:
    weight = np.random.default_rng(0).normal(size=(32, 16)).astype(dtype)
    path = tmp_path / "m.onnx"
    model = ir.serde.deserialize_model(onnx.load(matmul_model(path, False, weight.astype(np.float32))))
    value = model.graph.initializers["w"]
    value.const_value = ir.tensor(weight, name="w")
    value.dtype = value.const_value.dtype
    for tensor in (*model.graph.inputs, *model.graph.outputs):
        tensor.dtype = value.const_value.dtype
    ir.save(model, path)
    after, _ = prune(path, sparsity=0.25)
    assert after["w"].dtype == weight.dtype
    tau = np.sort(np.abs(weight.astype(np.float64)).ravel())[128]
    assert zeros(after["w"]) == 128
    kept = np.abs(weight.astype(np.float64)) > tau
    np.testing.assert_array_equal(after["w"][kept], weight[kept])


def test_shared_weight_is_pruned_once_and_both_layers_see_it(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    path = shared_model(tmp_path / "m.onnx", weight)
    after, outcome = prune(path, sparsity=0.5)
    assert zeros(after["w"]) == 32
    assert outcome.details["weights"] == 64
    assert [entry.layer for entry in outcome.layers] == ["first", "second"]
    after, outcome = prune(path, sparsity=0.5, layers={"exclude": ["second"]})
    np.testing.assert_array_equal(after["w"], weight)
    (entry,) = outcome.layers
    assert (entry.changed, entry.note) == (False, "shares its weight with 'second', which is not selected")


def shared_model(path: Path, weight: np.ndarray) -> Path:
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
            helper.make_node("MatMul", ["h", "w"], ["y"], name="second"),
        ],
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 8])],
        [helper.make_tensor_value_info("y", 1, ["n", 8])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_large_tensors_are_computed_when_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_model(tmp_path / "m.onnx")
    expected, _ = prune(path, sparsity=0.4)
    monkeypatch.setattr(weight_targets, "IN_MEMORY_BYTES", 0)
    after, outcome = prune(path, sparsity=0.4)
    assert isinstance(outcome.model.graph.initializers["conv2.w"].const_value, ir.LazyTensor)
    for name in KERNELS:
        np.testing.assert_array_equal(after[name], expected[name])


def test_report_does_not_flatter(tmp_path: Path) -> None:
    _, outcome = prune(small_model(tmp_path / "m.onnx"), threshold=1000.0)
    assert ZEROS_ONLY in outcome.notes
    assert any("nothing is left of conv1, conv2, fc" in note for note in outcome.notes)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "exactly one"),
        ({"sparsity": 0.5, "threshold": 0.1}, "exactly one"),
        ({"sparsity": 1.0}, "less than 1"),
        ({"sparsity": 0.0}, "greater than 0"),
        ({"threshold": 0.0}, "greater than 0"),
        ({"sparsity": float("nan")}, "sparsity"),
        ({"pattern": "4:2"}, "smaller than M"),
        ({"pattern": "4:4"}, "smaller than M"),
        ({"pattern": "two:4"}, "pattern"),
    ],
)
def test_contradicting_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PruneMagnitude(**parameters)
