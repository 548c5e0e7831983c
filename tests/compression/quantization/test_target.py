"""Targets: every profile gives a model that loads and is faithful, with the integers that it promises."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compression import runtime
from compression.errors import NotApplicable
from compression.methods.quantize_static import QuantizeStatic
from compression.quantization.affine import sqnr_db
from compression.quantization.target import TARGETS, resolve_target
from tests.compression.quantization import graphs


def run(target, folder, **parameters):
    model = graphs.residual()
    step = QuantizeStatic(target=target, max_seconds=4, **parameters)
    outcome = step.apply(graphs.opened(model, folder), graphs.context(folder, model))
    path = graphs.written(outcome.model, folder)
    given = graphs.feeds(model, 2, seed=3)
    before, after = graphs.answers(folder / "original.onnx", given), graphs.answers(path, given)
    return outcome, onnx.load(path), min(sqnr_db(a, b) for a, b in zip(before, after, strict=True))


def integers(model):
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def reads(model, kind, index):
    return [
        node.input[index] for node in model.graph.node if node.op_type == kind and len(node.input) > index
    ]


@pytest.mark.parametrize(
    ("target", "activations"), [("cpu-avx2", "int8"), ("cpu-arm", "auto"), ("tensorrt", "auto")]
)
def test_unsigned_weights_need_unsigned_activations(target, activations):
    with pytest.raises(NotApplicable) as refused:
        resolve_target(target, "cpu", activations, "uint8")
    assert refused.value.where == "weights" and target in str(refused.value)


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.groups])
def test_each_target_computes_faithfully_in_its_own_integers(name, tmp_path):
    outcome, model, db = run(name, tmp_path)
    target = TARGETS[name]
    stored = integers(model)
    kinds = {stored[item].dtype for item in reads(model, "QuantizeLinear", 2)}
    assert kinds in ({np.dtype(target.activations)}, set()) and (kinds or resolve_target(name, "cpu").here)
    assert db > 20 and outcome.notes


def test_seven_bits_keep_two_products_in_sixteen(tmp_path):
    _, model, _ = run("cpu-avx2", tmp_path, placement="all")
    weights = [array for name, array in integers(model).items() if array.dtype == np.int8 and array.ndim > 1]
    assert weights and max(np.abs(weight.astype(int)).max() for weight in weights) <= 63
    assert 255 * 63 * 2 < 2**15


def test_tensorrt_gets_zero_points_of_zero_and_float_biases(tmp_path):
    _, model, _ = run("tensorrt", tmp_path)
    stored = integers(model)
    assert {int(np.max(np.abs(stored[item]))) for item in reads(model, "QuantizeLinear", 2)} == {0}
    biases = [item for item in reads(model, "Conv", 2) if item]
    assert biases and all(stored[item].dtype == np.float32 for item in biases)


def test_a_target_elsewhere_is_not_timed_and_says_so(tmp_path):
    outcome, _, _ = run("cpu-arm", tmp_path)
    assert outcome.details["target"] == "cpu-arm"
    assert all(item["speedup"] is None for item in outcome.details["candidates"])
    assert any("do not tell of it" in note for note in outcome.notes)


def test_where_integers_never_pay_only_the_storage_changes(tmp_path):
    outcome, model, db = run("cuda", tmp_path)
    assert not reads(model, "QuantizeLinear", 2)
    assert outcome.details["fallback"] == "weight-only" and "no integer convolution" in outcome.notes[0]
    assert db > 25


@pytest.mark.parametrize("vnni", [True, False])
def test_cpu_is_the_one_at_hand(vnni, monkeypatch):
    monkeypatch.setattr(runtime, "has_vnni", lambda: vnni)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    found = resolve_target("cpu", "cpu")
    assert (found.name, found.here) == ("cpu-vnni" if vnni else "cpu-avx2", True)
    assert not resolve_target("cpu-arm", "cpu").here


def test_activations_that_were_asked_for_come_first():
    assert resolve_target("cpu-avx2", "cpu", "int8").activations is np.int8
    assert resolve_target("cpu-arm", "cpu", "uint8").activations is np.uint8


def test_only_unsigned_weights_keep_eight_bits_where_products_are_added_in_sixteen():
    assert resolve_target("cpu-avx2", "cpu", "int8").weight_bits == 7
    assert resolve_target("cpu-avx2", "cpu", weights="int8").weight_bits == 7
    assert resolve_target("cpu-avx2", "cpu", weights="uint8").weight_bits == 8
