"""quantize_weights on graphs of every kind: smaller, faithful, folded at load, or kept for a reason."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from compression.errors import NotApplicable
from compression.graph import inspect_model, summarise
from compression.methods.quantize_weights import QuantizeWeights
from compression.quantization.affine import sqnr_db
from tests.compression.quantization import graphs


def run(model, folder, **parameters):
    step = QuantizeWeights.model_validate({"method": "quantize_weights", **parameters})
    outcome = step.apply(graphs.opened(model, folder), graphs.context(folder))
    return outcome, graphs.written(outcome.model, folder)


@pytest.mark.parametrize("name", graphs.ALL)
def test_smaller_and_faithful(name, tmp_path):
    model = graphs.ALL[name]()
    outcome, path = run(model, tmp_path)
    assert any(layer.changed for layer in outcome.layers)
    assert path.stat().st_size < (tmp_path / "original.onnx").stat().st_size
    given = graphs.feeds(model, 2 if name != "embedding" else 5)
    for before, after in zip(
        graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given), strict=True
    ):
        assert before.dtype == after.dtype and before.shape == after.shape
        # int8 with a scale per channel gives Gaussian weights 40 dB and more; one layer adds no more noise.
        assert sqnr_db(before, after) > 34


@pytest.mark.parametrize(
    "name", ["plain", "opset7", "branches", "function", "half", "recurrent", "depthwise"]
)
def test_the_runtime_folds_the_chain(name, tmp_path):
    _, path = run(graphs.ALL[name](), tmp_path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = list(kinds_in(onnx.load(tmp_path / "optimized.onnx").graph))
    assert "Mul" not in kinds
    # A CPU without float16 kernels gets casts around the product itself, never one of integers.
    assert name == "half" or "Cast" not in kinds


def kinds_in(graph):
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from kinds_in(attribute.g)


def test_integers_are_numpys(tmp_path):
    model = graphs.plain()
    _, path = run(model, tmp_path, min_output_sqnr_db=0)
    stored = {item.name: numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}
    weight = numpy_helper.to_array(model.graph.initializer[0])
    scale = np.abs(weight).max(axis=0, keepdims=True) / np.float32(127)
    np.testing.assert_allclose(stored["w_scale"], scale, rtol=1e-6)
    np.testing.assert_array_equal(stored["w_integers"], np.rint(weight / stored["w_scale"]).astype(np.int8))


def test_a_shared_weight_is_stored_once_and_both_users_see_it(tmp_path):
    outcome, path = run(graphs.shared(), tmp_path)
    assert [layer.changed for layer in outcome.layers] == [True, True]
    names = [item.name for item in onnx.load(path).graph.initializer]
    assert len([name for name in names if name.startswith("w_integers")]) == 1 and "w" not in names


def test_a_weight_shared_with_an_excluded_layer_stays(tmp_path):
    outcome, path = run(graphs.shared(), tmp_path, layers={"include": ["first"]})
    assert not outcome.layers[0].changed and "second" in outcome.layers[0].note
    assert "w" in [item.name for item in onnx.load(path).graph.initializer]


def test_a_weight_that_is_an_output_stays(tmp_path):
    model = graphs.plain()
    model.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [64, 64]))
    outcome, _ = run(model, tmp_path)
    assert "output" in outcome.layers[0].note and not outcome.layers[0].changed


def test_a_layer_under_the_bound_is_kept_with_the_reason(tmp_path):
    outcome, _ = run(graphs.plain(), tmp_path, min_sqnr_db=100)
    assert not outcome.layers[0].changed
    assert "100" in outcome.layers[0].note and outcome.layers[0].numbers["sqnr_db"] < 100


def test_outputs_under_the_bound_get_int16(tmp_path):
    outcome, path = run(graphs.residual(), tmp_path, min_output_sqnr_db=60)
    assert any("int16" in layer.note for layer in outcome.layers)
    assert "int16" in outcome.notes[0]
    given = graphs.feeds(graphs.residual(), 2)
    before, after = graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given)
    # The probe's inputs differ from these, so that a little is allowed for.
    assert sqnr_db(before[0], after[0]) > 55


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_naming_the_tensor(bad, tmp_path):
    model = graphs.plain()
    values = numpy_helper.to_array(model.graph.initializer[0]).copy()
    values[3, 4] = bad
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))
    with pytest.raises(NotApplicable) as refused:
        run(model, tmp_path)
    assert refused.value.where == "w"


def test_all_zero_channels_and_constant_weights(tmp_path):
    model = graphs.plain()
    values = np.full((64, 64), 0.75, np.float32)
    values[:, 5] = 0
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))
    outcome, path = run(model, tmp_path)
    assert outcome.layers[0].changed
    given = graphs.feeds(model, 2)
    before, after = graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given)
    np.testing.assert_allclose(after[0], before[0], rtol=1e-5, atol=1e-5)


def test_a_second_time_is_refused(tmp_path):
    _, path = run(graphs.residual(), tmp_path)
    summary = inspect_model(path, tmp_path / "again")
    with pytest.raises(NotApplicable):
        QuantizeWeights().selected(summary)


def test_the_forecast_tells_the_size(tmp_path):
    model = graphs.convolutions()
    before = summarise(graphs.opened(model, tmp_path), size_bytes=(tmp_path / "original.onnx").stat().st_size)
    forecast = QuantizeWeights().forecast(before, {})
    _, path = run(model, tmp_path)
    assert forecast.layers == ("c",)
    assert forecast.model_after.size_bytes == pytest.approx(path.stat().st_size, rel=0.15)


def test_details_are_json(tmp_path):
    outcome, _ = run(graphs.residual(), tmp_path)
    json.dumps(outcome.details, allow_nan=False)
