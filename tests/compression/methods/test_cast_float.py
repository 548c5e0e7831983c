"""cast_float: float16 stored and computed, borders in the uploaded types, overflow guarded."""

import json

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError

from compression.graph import check_same_interface, interface, summarise
from compression.methods.cast_float import CastFloat
from compression.quantization.affine import sqnr_db
from tests.compression.quantization import graphs

FLOAT32 = [name for name in graphs.ALL if name != "half"]


def run(model, folder, **parameters):
    step = CastFloat.model_validate({"method": "cast_float", **parameters})
    outcome = step.apply(graphs.opened(model, folder), graphs.context(folder))
    return outcome, graphs.written(outcome.model, folder)


@pytest.mark.parametrize("compute", ["float32", "float16"])
@pytest.mark.parametrize("name", FLOAT32)
def test_half_the_size_and_faithful(name, compute, tmp_path):
    model = graphs.ALL[name]()
    outcome, path = run(model, tmp_path, compute=compute)
    original = tmp_path / "original.onnx"
    assert path.stat().st_size < original.stat().st_size
    check_same_interface(interface(graphs.opened(model, tmp_path)), interface(outcome.model))
    given = graphs.feeds(model, 2)
    before, after = graphs.answers(original, given), graphs.answers(path, given)
    # Eleven bits of mantissa: 66 dB per rounding and more.
    assert all(sqnr_db(left, right) > 50 for left, right in zip(before, after, strict=True))
    assert all(left.dtype == right.dtype for left, right in zip(before, after, strict=True))
    json.dumps(outcome.details, allow_nan=False)


STORED = {"bfloat16": (35, 0.55), "float8_e4m3": (22, 0.35), "float8_e5m2": (16, 0.35)}
"""What the mantissa leaves (dB), 6 dB for each bit and a bit more, and the share of the file at most."""


@pytest.mark.parametrize("format", STORED)
@pytest.mark.parametrize("name", FLOAT32)
def test_narrower_formats_are_folded_at_load(name, format, tmp_path):
    model = graphs.ALL[name]()
    _, path = run(model, tmp_path, format=format)
    given = graphs.feeds(model, 2)
    before, after = graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given)
    assert all(sqnr_db(left, right) > STORED[format][0] for left, right in zip(before, after, strict=True))


@pytest.mark.parametrize("format", STORED)
def test_stored_values_are_those_of_ml_dtypes(format, tmp_path):
    kind = {"bfloat16": "bfloat16", "float8_e4m3": "float8_e4m3fn", "float8_e5m2": "float8_e5m2"}[format]
    model = graphs.plain()
    original = numpy_helper.to_array(model.graph.initializer[0])
    outcome, path = run(model, tmp_path, format=format)
    answer = graphs.answers(path, {"x": np.eye(64, dtype=np.float32)})[0]
    scale = 1 if format == "bfloat16" else np.abs(original).max(axis=0) / float(ml_dtypes.finfo(kind).max)
    expected = (original / scale).astype(np.dtype(getattr(ml_dtypes, kind))).astype(np.float32) * scale
    assert np.allclose(answer, expected, rtol=1e-6, atol=0)
    assert path.stat().st_size < STORED[format][1] * (tmp_path / "original.onnx").stat().st_size
    assert outcome.layers[0].numbers["sqnr_db"] == pytest.approx(sqnr_db(original, expected), abs=0.01)


@pytest.mark.parametrize("format", ["bfloat16", "float8_e4m3"])
def test_what_is_beyond_float16_fits(format, tmp_path):
    model = graphs.plain()
    big = numpy_helper.to_array(model.graph.initializer[0]) * np.float32(1e6)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(big, "w"))
    outcome, _ = run(model, tmp_path, format=format)
    assert outcome.layers[0].changed


@pytest.mark.parametrize("format", STORED)
def test_a_forecast_tells_the_bytes(format, tmp_path):
    model = graphs.opened(graphs.plain(), tmp_path)
    step = CastFloat.model_validate({"method": "cast_float", "format": format})
    before = summarise(model, size_bytes=0)
    told = step.forecast(before, {}).model_after.layers[0].weight
    after = summarise(step.apply(model, graphs.context(tmp_path)).model, size_bytes=0).layers[0].weight
    assert (told.dtype, told.shape) == (after.dtype, after.shape)
    assert after.size_bytes <= told.size_bytes < before.layers[0].weight.size_bytes


def test_only_float16_computes():
    with pytest.raises(ValidationError, match="for storage alone"):
        CastFloat.model_validate({"method": "cast_float", "format": "bfloat16", "compute": "float16"})


def test_auto_on_a_cpu_stores_only(tmp_path):
    outcome, path = run(graphs.residual(), tmp_path)
    assert outcome.details["compute"] == "float32"
    casts = [node for node in onnx.load(path).graph.node if node.op_type == "Cast"]
    stored = {item.name for item in onnx.load(path).graph.initializer}
    assert casts and all(cast.input[0] in stored for cast in casts)


def test_arithmetic_casts_only_at_the_borders(tmp_path):
    outcome, path = run(graphs.residual(), tmp_path, compute="float16")
    assert outcome.details["compute"] == "float16"
    casts = [node for node in onnx.load(path).graph.node if node.op_type == "Cast"]
    assert casts[0].input[0] == "x" and casts[-1].output[0] == "y" and len(casts) == 2


@pytest.mark.parametrize("compute", ["float32", "float16"])
def test_a_weight_beyond_float16_keeps_its_layer(compute, tmp_path):
    model = graphs.shared()
    big = numpy_helper.to_array(model.graph.initializer[0]).copy()
    big[0, 0] = 1e5
    model.graph.initializer.append(numpy_helper.from_array(big, "big"))
    model.graph.node[2].input[1] = "big"
    outcome, path = run(model, tmp_path, compute=compute, min_output_sqnr_db=0)
    notes = {layer.layer: layer for layer in outcome.layers}
    assert notes["first"].changed and not notes["second"].changed
    assert "65504" in notes["second"].note
    assert np.isfinite(graphs.answers(path, graphs.feeds(model, 2))[0]).all()


def test_an_activation_beyond_float16_is_computed_in_float32(tmp_path):
    nodes = [
        helper.make_node("Mul", ["x", "large"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["y"], name="m"),
    ]
    large = numpy_helper.from_array(np.array(60000, np.float32), "large")
    model = graphs.build(nodes, [large, graphs.weight("w", 64, 64)], [graphs.X], [graphs.Y])
    outcome, path = run(model, tmp_path, compute="float16")
    assert "reaches" in outcome.layers[0].note and "stored as float16" in outcome.layers[0].note
    assert outcome.details["nodes_in_float16"] == 0
    assert np.isfinite(graphs.answers(path, graphs.feeds(model, 2))[0]).all()


def test_a_value_read_inside_a_body_stays_float32_there(tmp_path):
    model = graphs.branches()
    model.graph.node.insert(0, helper.make_node("MatMul", ["raw", "outer"], ["x"], name="outer"))
    model.graph.initializer.append(graphs.weight("outer", 64, 64))
    model.graph.input[0].name = "raw"
    outcome, path = run(model, tmp_path, compute="float16")
    assert outcome.details["compute"] == "float16"
    given = graphs.feeds(model, 2)
    before, after = graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given)
    assert sqnr_db(before[0], after[0]) > 50


def test_an_operator_whose_type_stands_in_an_attribute_stays(tmp_path):
    shape = numpy_helper.from_array(np.array([1, 64], np.int64), "shape")
    fill = numpy_helper.from_array(np.array([0.5], np.float32))
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["half"], value=fill),
        helper.make_node("Add", ["x", "half"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["y"], name="m"),
    ]
    model = graphs.build(nodes, [shape, graphs.weight("w", 64, 64)], [graphs.X], [graphs.Y])
    outcome, _ = run(model, tmp_path, compute="float16")
    assert outcome.details["compute"] == "float16"


def test_an_input_that_is_an_output_too(tmp_path):
    model = graphs.plain()
    model.graph.node.append(helper.make_node("Identity", ["x"], ["same"]))
    model.graph.output.append(helper.make_tensor_value_info("same", TensorProto.FLOAT, ["n", 64]))
    _, path = run(model, tmp_path, compute="float16")
    given = graphs.feeds(model, 2)
    assert len(graphs.answers(path, given)) == 2
