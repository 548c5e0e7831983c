"""quantize_static: integers where they pay, stored weights elsewhere, never an unfaithful model."""

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compression import runtime
from compression.errors import DataMissing, NotApplicable
from compression.graph import inspect_model, layers
from compression.methods.quantize_static import QuantizeStatic
from compression.quantization.affine import sqnr_db
from compression.quantization.latency import Speed
from compression.quantization.placement import Placement
from compression.quantization.recovery.shifting import shift
from tests.compression.quantization import graphs


def run(model, folder, **parameters):
    step = QuantizeStatic.model_validate({"method": "quantize_static", "max_seconds": 4, **parameters})
    outcome = step.apply(graphs.opened(model, folder), graphs.context(folder, model))
    return outcome, graphs.written(outcome.model, folder)


def kinds(path):
    return [node.op_type for node in onnx.load(path).graph.node]


def fidelity(model, folder, path):
    given = graphs.feeds(model, 2, seed=3)
    before, after = graphs.answers(folder / "original.onnx", given), graphs.answers(path, given)
    assert [item.dtype for item in before] == [item.dtype for item in after]
    return min(sqnr_db(left, right) for left, right in zip(before, after, strict=True))


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize(
    "ranges", ["auto", "minmax", "moving_average", "percentile", "entropy", "mse", "grid_search"]
)
def test_everything_in_integers_is_faithful(activations, ranges, tmp_path):
    model = graphs.residual()
    outcome, path = run(
        model, tmp_path, placement="all", activations=activations, ranges=ranges, percentile=99.999
    )
    assert [layer.note for layer in outcome.layers] == ["computes in int8"] * 4
    assert kinds(path).count("DequantizeLinear") > 8
    # 8-bit activations over five layers: 30 dB is what a range 6 sigma wide leaves of 50 dB per tensor.
    assert fidelity(model, tmp_path, path) > 26


@pytest.mark.parametrize("name", graphs.ALL)
def test_auto_loads_and_is_faithful_or_refuses(name, tmp_path):
    model = graphs.ALL[name]()
    outcome, path = run(model, tmp_path)
    assert path.stat().st_size < (tmp_path / "original.onnx").stat().st_size
    assert fidelity(model, tmp_path, path) > 18
    assert outcome.notes
    json.dumps(outcome.details, allow_nan=False)


def test_grid_search_keeps_the_outputs_at_least_as_well_as_every_rule(tmp_path):
    model = graphs.residual()
    outcome, path = run(model, tmp_path, placement="all", ranges="grid_search", folds=2, max_seconds=60)
    noise = outcome.details["noise_by_ranges"]
    assert {"each tensor its own", "minmax", "mse", "entropy", "percentile 99.99", "minmax x 0.5"} < set(
        noise
    )
    assert noise[outcome.details["ranges_chosen"]] == min(noise.values())
    assert sum(outcome.details["tensors_by_range"].values()) == outcome.details["tensors_observed"]
    assert 0 < outcome.details["share_error_at_most"] < 0.05
    assert fidelity(model, tmp_path, path) > 26


def test_auto_takes_the_simple_rule_that_keeps_the_outputs_best(tmp_path):
    outcome, _ = run(graphs.residual(), tmp_path, placement="all")
    noise = outcome.details["noise_by_ranges"]
    assert list(noise) == ["minmax", "percentile 99.99", "mse"]
    assert noise[outcome.details["ranges_chosen"]] == min(noise.values())


def test_auto_takes_all_values_where_no_sample_is_left_to_judge_by(tmp_path):
    model = graphs.opened(graphs.residual(), tmp_path)
    step = QuantizeStatic.model_validate({"method": "quantize_static", "placement": "all"})
    given = graphs.context(tmp_path, graphs.residual(), samples=1)
    plain = step.model_copy(update={"ranges": "minmax"})
    shared = graphs.feeds(graphs.residual(), 2, seed=3)
    (left,), (right,) = (
        graphs.answers(graphs.written(one.apply(model.clone(), given).model, tmp_path), shared)
        for one in (step, plain)
    )
    np.testing.assert_array_equal(left, right)
    assert left.any()


def test_grid_search_ends_when_its_time_is_up(tmp_path, monkeypatch):
    clock = itertools.count(step=0.3)
    monkeypatch.setattr("compression.quantization.grid.time", SimpleNamespace(monotonic=lambda: next(clock)))
    outcome, _ = run(graphs.residual(), tmp_path, placement="all", ranges="grid_search", max_seconds=2)
    assert list(outcome.details["noise_by_ranges"]) == ["each tensor its own", "minmax"]


def test_what_is_quantized_already_is_refused(tmp_path):
    _, path = run(graphs.residual(), tmp_path, placement="all")
    with pytest.raises(NotApplicable, match="none that still hold floats"):
        QuantizeStatic().selected(inspect_model(path, tmp_path / "inspection"))


def test_a_relu_belongs_to_its_convolution(tmp_path):
    _, path = run(graphs.residual(), tmp_path, placement="all", activations="uint8")
    graph = onnx.load(path).graph
    made_by = {output: node for node in graph.node for output in node.output}
    relu = next(
        node for node in graph.node if node.op_type == "Relu" and made_by[node.input[0]].op_type == "Conv"
    )
    readers = [node.op_type for node in graph.node if relu.output[0] in node.input]
    assert readers == ["QuantizeLinear"]
    zero = next(node for node in graph.node if relu.output[0] in node.input).input[2]
    value = next(numpy_helper.to_array(item) for item in graph.initializer if item.name == zero)
    assert int(value) == 0


@pytest.mark.parametrize(
    ("activations", "weights"), [("uint8", "int8"), ("uint8", "uint8"), ("int8", "int8")]
)
def test_the_largest_products_come_out_as_written_on_this_processor(activations, weights, tmp_path):
    model = graphs.plain()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((64, 64), 0.2, np.float32), "w"))
    chosen = {"placement": "all", "weights": weights, "activations": activations}
    _, path = run(model, tmp_path, ranges="minmax", **chosen)
    given = {"x": np.full((1, 64), 4.0, np.float32)}
    exact, here = (
        runtime.run(runtime.open_session(path, device="cpu", threads=1, optimize=optimize), given)["y"]
        for optimize in (False, True)
    )
    # Products that saturate in 16 bits would be about half of what they are.
    np.testing.assert_allclose(here, exact, rtol=1e-4)


def test_unsigned_weights_are_the_signed_ones_moved_by_128(tmp_path):
    stored = []
    for weights in ("int8", "uint8"):
        (tmp_path / weights).mkdir()
        fields = {"placement": "all", "target": "cpu-vnni", "weights": weights}
        _, path = run(graphs.convolutions(), tmp_path / weights, **fields)
        graph = onnx.load(path).graph
        values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        restore = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
        node = restore[next(node for node in graph.node if node.op_type == "Conv").input[1]]
        assert values[node.input[0]].dtype == values[node.input[2]].dtype == weights
        stored.append(values[node.input[0]].astype(int) - values[node.input[2]][0])
    np.testing.assert_array_equal(*stored)


def test_bias_is_int32_in_steps_of_input_times_weight(tmp_path):
    model = graphs.convolutions()
    _, path = run(model, tmp_path, placement="all", correct_biases=False)
    graph = onnx.load(path).graph
    stored = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    restore = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    conv = next(node for node in graph.node if node.op_type == "Conv")
    x, w, b = (restore[name] for name in conv.input)
    np.testing.assert_allclose(stored[b.input[1]], stored[x.input[1]] * stored[w.input[1]], rtol=1e-6)
    expected = numpy_helper.to_array(model.graph.initializer[1])
    assert stored[b.input[0]].dtype == np.int32
    steps = stored[b.input[1]]
    np.testing.assert_array_less(np.abs(stored[b.input[0]] * steps - expected), steps * 0.51)


def test_a_tiny_channel_with_a_large_bias_does_not_overflow(tmp_path):
    model = graphs.convolutions()
    values = numpy_helper.to_array(model.graph.initializer[0]).copy()
    values[0] *= 1e-12
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))
    _, path = run(model, tmp_path, placement="all")
    assert fidelity(model, tmp_path, path) > 26


def test_an_intermediate_output_keeps_its_name_and_values(tmp_path):
    model = graphs.residual()
    model.graph.output.append(helper.make_tensor_value_info("r1", TensorProto.FLOAT, ["n", 32, 16, 16]))
    _, path = run(model, tmp_path, placement="all")
    assert [item.name for item in onnx.load(path).graph.output] == ["y", "r1"]
    assert fidelity(model, tmp_path, path) > 26


def test_nan_in_activations_leaves_the_layer_in_floats(tmp_path):
    model = graphs.plain()
    model.graph.node.insert(0, helper.make_node("Log", ["x"], ["logs"]))
    model.graph.node[1].input[0] = "logs"
    outcome, path = run(model, tmp_path)
    assert "logs" in json.dumps(outcome.details["tensors_refused"])
    assert "NaN or infinity on the calibration data" in outcome.notes[0]
    assert "DequantizeLinear" not in kinds(path)


def test_an_accuracy_that_cannot_be_met_falls_back(tmp_path):
    outcome, path = run(graphs.residual(), tmp_path, min_output_sqnr_db=80)
    assert outcome.details["fallback"] == "weight-only"
    assert "spoil" in outcome.notes[0]
    assert "QuantizeLinear" not in kinds(path)


def test_layers_left_out_stay_in_floats_and_untouched(tmp_path):
    outcome, _ = run(graphs.residual(), tmp_path, placement="all", layers={"include": ["c2"]})
    assert [layer.layer for layer in outcome.layers] == ["c2"]
    by_name = {layer.name: layer for layer in layers(outcome.model)}
    assert by_name["fc"].weights[0].dtype.name == "FLOAT"
    assert by_name["c2"].weights[0].dtype.name == "INT8"


def test_no_data_is_refused(tmp_path):
    model = graphs.plain()
    with pytest.raises(DataMissing):
        QuantizeStatic().apply(graphs.opened(model, tmp_path), graphs.context(tmp_path))


def test_nan_in_a_weight_is_refused_naming_it(tmp_path):
    model = graphs.convolutions()
    values = numpy_helper.to_array(model.graph.initializer[0]).copy()
    values[0, 0, 0, 0] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))
    with pytest.raises(NotApplicable) as refused:
        run(model, tmp_path)
    assert refused.value.where == "w"


def test_biases_are_corrected_only_where_the_outputs_come_nearer(tmp_path):
    model = graphs.residual()
    options = {"placement": "all", "activations": "uint8", "max_seconds": 600}
    (tmp_path / "plain").mkdir()
    plain, _ = run(model, tmp_path / "plain", correct_biases=False, **options)
    corrected, _ = run(model, tmp_path, **options)
    before, after = (item.details["candidates"][0]["outputs"]["sqnr_db"] for item in (plain, corrected))
    told = corrected.details["bias_correction"]
    # What rounding weights does to means is taken back before anything is judged.
    assert told["before"]["sqnr_db"] > before + 1
    assert set(told["tried"]) == {"all layers at once", "layer by layer"}
    assert after == max(told["before"]["sqnr_db"], *(item["sqnr_db"] for item in told["tried"].values()))
    assert told["kept"] == (after > told["before"]["sqnr_db"])
    assert ("were corrected" if told["kept"] else "were left") in corrected.notes[-1]
    assert "bias_correction" not in plain.details


def test_a_correction_that_harms_is_not_kept(tmp_path, monkeypatch):
    def harmful(node, amount, names):
        shift(node, amount + 1.0, names)

    monkeypatch.setattr("compression.quantization.recovery.bias.shift", harmful)
    outcome, path = run(graphs.residual(), tmp_path, placement="all")
    told = outcome.details["bias_correction"]
    assert not told["kept"]
    assert "biases were left as they were" in outcome.notes[-1]
    assert all(item["sqnr_db"] < told["before"]["sqnr_db"] for item in told["tried"].values())
    assert fidelity(graphs.residual(), tmp_path, path) > 26


def test_learned_rounding_never_does_harm_and_is_told(tmp_path):
    model = graphs.residual()
    options = {"placement": "all", "activations": "uint8", "max_seconds": 60}
    (tmp_path / "plain").mkdir()
    plain, _ = run(model, tmp_path / "plain", **options)
    learned, path = run(model, tmp_path, rounding="learned", rounding_steps=60, **options)
    told = learned.details["learned_rounding"]
    assert set(told["error_by_layer"]) | set(told["left"]) == {"c1", "c2", "c3", "fc"}
    assert told["error_by_layer"]
    assert all(error < 1 for error in told["error_by_layer"].values())
    before, after = (item.details["candidates"][0]["outputs"]["sqnr_db"] for item in (plain, learned))
    assert after >= before
    kept = any("was learned" in note for note in learned.notes)
    assert kept != any("rounded to the nearest: learned" in note for note in learned.notes)
    assert kept == (after > before)
    assert fidelity(model, tmp_path, path) > 26


def test_the_integers_learned_are_those_in_the_file(tmp_path, monkeypatch):
    """Rounding that is a little wrong on purpose, kept without a check: it has to be found in the file."""
    from compression.quantization.recovery import recovering, rounding

    learn = rounding.learn_rounding
    made = []

    def shifted(problem, **options):
        found = learn(problem, steps=0, seed=0)
        integers = found.integers.copy()
        integers[:, :, 0] += np.where(np.abs(integers[:, :, 0]) < 100, 1, 0).astype(np.int8)
        made.append(integers)
        return rounding.Learned(integers=integers, error=0.5, flipped=0.0)

    monkeypatch.setattr(rounding, "learn_rounding", shifted)
    monkeypatch.setattr(recovering, "_better", lambda *_: True)
    _, path = run(
        graphs.convolutions(),
        tmp_path,
        placement="all",
        rounding="learned",
        correct_biases=False,
        max_seconds=60,
    )
    stored = [numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer]
    (weight,) = (item for item in stored if item.dtype == np.int8 and item.ndim == 4)
    np.testing.assert_array_equal(weight.reshape(made[0].shape), made[0])


def spelt_hard_swish():
    """A convolution and HardSwish as exporters for operator sets below 14 write it."""
    numbers = {"three": 3, "zero": 0, "six": 6}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Add", ["c", "three"], ["a"]),
        helper.make_node("Clip", ["a", "zero", "six"], ["k"]),
        helper.make_node("Mul", ["c", "k"], ["p"]),
        helper.make_node("Div", ["p", "six"], ["y"]),
    ]
    stored = [numpy_helper.from_array(np.float32(number), name) for name, number in numbers.items()]
    image = ("x", TensorProto.FLOAT, ["n", 16, 8, 8])
    out = ("y", TensorProto.FLOAT, ["n", 32, 6, 6])
    return graphs.build(nodes, [graphs.weight("w", 32, 16, 3, 3), *stored], [image], [out])


@pytest.mark.parametrize(("integers", "floats"), [(0.9, 1.5), (1.6, 1.2), (0.9, 1.0)])
def test_the_same_floats_with_fewer_nodes_take_part(integers, floats, tmp_path, monkeypatch):
    def timed(self, candidates, seconds):
        speeds = [integers if candidate.layers else floats for candidate in candidates]
        found = [Speed(speedup=s, low=s - 0.05, high=s + 0.05, latency_ms=1.0, rounds=9) for s in speeds]
        return tuple(replace(item, speed=speed) for item, speed in zip(candidates, found, strict=True))

    monkeypatch.setattr(Placement, "_timed", timed)
    model = spelt_hard_swish()
    outcome, path = run(model, tmp_path)
    made = kinds(path)
    assert ("QuantizeLinear" in made) == (integers > floats)
    # Of equally fast ones the original's graph stays.
    assert ("HardSigmoid" in made) == (max(integers, floats) > 1.05)
    assert fidelity(model, tmp_path, path) > 20
    if floats > max(integers, 1.05):
        assert "integers do not pay on this device" in outcome.notes[0]
        assert "with fewer nodes the model computes in floats, 1.50x" in outcome.notes[0]
        assert outcome.details["fallback"] == "weight-only"
        assert outcome.layers[0].changed and "int8" in outcome.layers[0].note
