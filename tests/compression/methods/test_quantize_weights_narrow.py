"""quantize_weights below int8 and in blocks: every storage against numpy, loading, folding, timing, refusing."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compression.errors import DataMissing, NotApplicable
from compression.graph import summarise
from compression.methods.quantize_weights import QuantizeWeights
from compression.quantization.affine import sqnr_db
from compression.quantization.rounding.blocks import Scheme
from compression.quantization.rounding.rtn import round_to_nearest
from tests.compression.methods.test_quantize_weights import kinds_in
from tests.compression.quantization import graphs

STORAGES = ["matmul_nbits", "dequantize_linear", "folded"]
KINDS = {"matmul_nbits": "MatMulNBits", "dequantize_linear": "DequantizeLinear", "folded": "BitShift"}


def run(model, folder, samples=64, **parameters):
    step = QuantizeWeights.model_validate({"bits": 4, "block_size": 16, **parameters})
    context = graphs.context(folder, model, samples) if samples else graphs.context(folder)
    outcome = step.apply(graphs.opened(model, folder), context)
    return outcome, graphs.written(outcome.model, folder)


def weights(kind, *, seed=0, rows=48, width=64):
    """A one-product model that reads its weight straight, transposed, or through Gemm with a bias."""
    stored = (np.random.default_rng(seed).normal(size=(width, rows)) * 0.1).astype(np.float32)
    array = stored if kind in ("matmul", "gemm") else stored.T
    initializers = [numpy_helper.from_array(np.ascontiguousarray(array), "w")]
    nodes = {
        "matmul": [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")],
        "gemm": [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="m")],
        "gemm_t": [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="m", transB=1)],
        "turned": [
            helper.make_node("Transpose", ["w"], ["t"], name="t", perm=[1, 0]),
            helper.make_node("MatMul", ["x", "t"], ["y"], name="m"),
        ],
    }[kind]
    if kind.startswith("gemm"):
        initializers.append(graphs.weight("b", rows))
    shape = ["n", width], ["n", rows]
    model = graphs.build(
        nodes, initializers, [("x", TensorProto.FLOAT, shape[0])], [("y", TensorProto.FLOAT, shape[1])]
    )
    return model, stored.T


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("kind", ["matmul", "gemm", "gemm_t", "turned"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_runtime_computes_with_numpys_weights(storage, kind, symmetric, tmp_path):
    model, matrix = weights(kind)
    outcome, path = run(model, tmp_path, storage=storage, symmetric=symmetric)
    assert KINDS[storage] in set(kinds_in(onnx.load(path).graph)), outcome.layers
    values = round_to_nearest(matrix, Scheme(bits=4, block=16, symmetric=symmetric)).values()
    given = graphs.feeds(model, 6)
    bias = next((numpy_helper.to_array(item) for item in model.graph.initializer if item.name == "b"), 0)
    seen = graphs.answers(path, given)[0]
    expected = given["x"] @ values.T + bias
    # Kernels on codes round their inputs to int8 by block.
    assert sqnr_db(expected, seen) > (110 if storage == "folded" else 38)
    assert outcome.layers[0].changed and path.stat().st_size < (tmp_path / "original.onnx").stat().st_size


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("block", [None, 8, 24, 32])
@pytest.mark.parametrize("symmetric", [True, False])
def test_any_bits_and_blocks_fold_to_numpys_weights(bits, block, symmetric, tmp_path):
    if bits == 8 and block is None and symmetric:
        pytest.skip("int8 per channel has tests of its own")
    model, matrix = weights("matmul", width=70)
    _, path = run(model, tmp_path, bits=bits, block_size=block, symmetric=symmetric, storage="folded")
    values = round_to_nearest(matrix, Scheme(bits=bits, block=block, symmetric=symmetric)).values()
    eye = {"x": np.eye(70, dtype=np.float32)}
    np.testing.assert_allclose(graphs.answers(path, eye)[0].T, values, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_kernels_of_every_width(bits, symmetric, tmp_path):
    model, matrix = weights("matmul")
    outcome, path = run(
        model, tmp_path, bits=bits, block_size=32, symmetric=symmetric, storage="matmul_nbits"
    )
    (node,) = onnx.load(path).graph.node
    assert node.op_type == "MatMulNBits" and "MatMulNBits" in outcome.layers[0].note
    values = round_to_nearest(matrix, Scheme(bits=bits, block=32, symmetric=symmetric)).values()
    given = graphs.feeds(model, 6)
    assert sqnr_db(given["x"] @ values.T, graphs.answers(path, given)[0]) > 35


@pytest.mark.parametrize("name", graphs.ALL)
@pytest.mark.parametrize("bits", [3, 4])
def test_every_graph_loads_and_stays_near(name, bits, tmp_path):
    model = graphs.ALL[name]()
    if name == "depthwise":
        pytest.skip("its 144 weights are too few to gain from fewer bits")
    outcome, path = run(model, tmp_path, bits=bits, storage="folded")
    given = graphs.feeds(model, 2 if name != "embedding" else 5)
    befores = graphs.answers(tmp_path / "original.onnx", given)
    for before, after in zip(befores, graphs.answers(path, given), strict=True):
        assert before.dtype == after.dtype and before.shape == after.shape
        if outcome.layers[0].changed:
            assert sqnr_db(before, after) > (8 if bits == 3 else 14)
    assert any(layer.changed for layer in outcome.layers) or bits == 3


@pytest.mark.parametrize("name", ["plain", "branches", "function", "recurrent", "conv"])
def test_the_runtime_folds_the_bits(name, tmp_path):
    import onnxruntime

    _, path = run(graphs.ALL[name](), tmp_path, storage="folded")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    assert not {"BitShift", "Mul", "Sub", "Cast"} & set(
        kinds_in(onnx.load(tmp_path / "optimized.onnx").graph)
    )


@pytest.mark.parametrize("algorithm", ["hqq", "gptq", "awq"])
def test_no_layer_is_worse_than_nearest_on_rows_kept_aside(algorithm, tmp_path):
    model, _ = weights("matmul")
    outcome, _ = run(model, tmp_path, samples=400, algorithm=algorithm, bits=3)
    numbers = outcome.layers[0].numbers
    assert numbers["output_error"] <= numbers["nearest_output_error"]
    assert outcome.details["calibration_samples"] == 256
    json.dumps(outcome.details, allow_nan=False)


def test_gptq_beats_nearest_where_inputs_hang_together(tmp_path):
    model, _ = weights("matmul")
    mix = np.random.default_rng(5).normal(size=(64, 64)).astype(np.float32) / 8
    model.graph.initializer.append(numpy_helper.from_array(mix @ mix, "mix"))
    model.graph.node[0].input[0] = "mixed"
    model.graph.node.insert(0, helper.make_node("MatMul", ["x", "mix"], ["mixed"], name="before"))
    outcome, path = run(model, tmp_path, samples=800, algorithm="gptq", layers={"include": ["m"]})
    numbers = outcome.layers[0].numbers
    assert "gptq" in outcome.layers[0].note
    assert numbers["output_error"] < 0.8 * numbers["nearest_output_error"]
    given = graphs.feeds(model, 4, seed=900)
    before, after = graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given)
    assert sqnr_db(before[0], after[0]) > 22


def test_few_samples_fall_back_and_say_so(tmp_path):
    outcome, _ = run(graphs.plain(), tmp_path, samples=4, algorithm="gptq")
    assert outcome.layers[0].numbers["output_error"] <= outcome.layers[0].numbers["nearest_output_error"]


@pytest.mark.parametrize("algorithm", ["gptq", "awq"])
def test_fitting_needs_calibration_data(algorithm, tmp_path):
    model = graphs.opened(graphs.plain(), tmp_path)
    step = QuantizeWeights(bits=4, block_size=32, algorithm=algorithm)
    told = step.forecast(summarise(model, size_bytes=20_000), {})
    assert [problem.code for problem in told.problems] == ["data_missing"]
    with pytest.raises(DataMissing, match="calibration"):
        step.apply(model, graphs.context(tmp_path))


@pytest.mark.parametrize("storage", ["matmul_nbits", "folded"])
def test_awq_divides_the_inputs_inside_the_normalization(storage, tmp_path):
    model, _ = weights("matmul")
    strong = np.ones(64, np.float32)
    strong[::8] = 40
    model.graph.initializer.extend([numpy_helper.from_array(strong, "g"), graphs.weight("beta", 64)])
    model.graph.node[0].input[0] = "normed"
    norm = helper.make_node("LayerNormalization", ["x", "g", "beta"], ["normed"], name="norm")
    model.graph.node.insert(0, norm)
    model.opset_import[0].version = 17
    outcome, path = run(model, tmp_path, samples=300, algorithm="awq", bits=4, storage=storage)
    assert "awq" in outcome.layers[0].note
    made = onnx.load(path).graph
    if storage == "matmul_nbits":
        assert [node.op_type for node in made.node] == ["LayerNormalization", "MatMulNBits"]
    given = graphs.feeds(model, 8, seed=77)
    before, after = graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given)
    assert sqnr_db(before[0], after[0]) > 20


def test_awq_divides_other_inputs_by_a_product_before(tmp_path):
    model, _ = weights("matmul")
    strong = np.ones((1, 64), np.float32)
    strong[:, ::8] = 40
    model.graph.initializer.append(numpy_helper.from_array(strong, "g"))
    model.graph.node[0].input[0] = "scaled"
    model.graph.node.insert(0, helper.make_node("Mul", ["x", "g"], ["scaled"], name="mul"))
    model.graph.output.append(helper.make_tensor_value_info("scaled", TensorProto.FLOAT, ["n", 64]))
    _, path = run(model, tmp_path, samples=300, algorithm="awq", storage="matmul_nbits")
    assert [node.op_type for node in onnx.load(path).graph.node] == ["Mul", "Mul", "MatMulNBits"]
    given = graphs.feeds(model, 8, seed=77)
    before, after = graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given)
    assert sqnr_db(before[0], after[0]) > 20
    np.testing.assert_array_equal(before[1], after[1])


def tied():
    """An embedding whose table is also the last product's weight, transposed."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="embed"),
        helper.make_node("Transpose", ["table"], ["t"], name="t", perm=[1, 0]),
        helper.make_node("MatMul", ["e", "t"], ["y"], name="head"),
    ]
    table = [graphs.weight("table", 120, 64)]
    return graphs.build(
        nodes, table, [("ids", TensorProto.INT64, ["n"])], [("y", TensorProto.FLOAT, ["n", 120])]
    )


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_tied_weights_are_stored_once_for_both_kernels(bits, symmetric, tmp_path):
    outcome, path = run(
        tied(), tmp_path, bits=bits, block_size=32, symmetric=symmetric, storage="matmul_nbits"
    )
    kinds = set(kinds_in(onnx.load(path).graph))
    fits = bits != 2 or symmetric
    assert ({"GatherBlockQuantized", "MatMulNBits"} <= kinds) == fits
    assert [layer.changed for layer in outcome.layers] == [True, True]
    codes = [item for item in onnx.load(path).graph.initializer if "codes" in item.name]
    assert sum(len(item.raw_data) for item in codes) == 120 * 64 * bits // 8
    given = {"ids": np.array([3, 7, 119, 0])}
    before, after = graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given)
    assert sqnr_db(before[0], after[0]) > {2: 3, 4: 15, 8: 35}[bits]


def test_auto_is_told_by_time(tmp_path):
    outcome, path = run(weights("matmul")[0], tmp_path)
    assert outcome.details["measured_ms"]
    kinds = set(kinds_in(onnx.load(path).graph))
    assert ("MatMulNBits" in kinds) != any("MatMulNBits would run" in note for note in outcome.notes)


def test_a_slow_kernel_is_not_taken(tmp_path, monkeypatch):
    from compression.quantization.narrow import deciding

    monkeypatch.setattr(deciding, "ALLOWANCE", 1e9)
    outcome, path = run(weights("matmul")[0], tmp_path)
    assert "MatMulNBits" not in set(kinds_in(onnx.load(path).graph))
    assert "fold" in outcome.layers[0].note and "speed" in outcome.notes[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_naming_the_tensor(bad, tmp_path):
    model, _ = weights("matmul")
    values = numpy_helper.to_array(model.graph.initializer[0]).copy()
    values[3, 4] = bad
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))
    with pytest.raises(NotApplicable) as refused:
        run(model, tmp_path, samples=0)
    assert refused.value.where == "w"


def test_inputs_that_are_no_numbers_are_named(tmp_path):
    model, _ = weights("matmul")
    model.graph.node[0].input[0] = "logged"
    model.graph.node.insert(0, helper.make_node("Log", ["x"], ["logged"], name="log"))
    outcome, _ = run(model, tmp_path, algorithm="gptq")
    assert any("'logged' takes NaN" in note for note in outcome.notes)


def test_a_bound_keeps_what_is_too_coarse(tmp_path):
    outcome, _ = run(graphs.plain(), tmp_path, bits=2, min_sqnr_db=30)
    assert not outcome.layers[0].changed and "30" in outcome.layers[0].note


def test_outputs_that_no_bits_bring_to_their_bound_are_told(tmp_path):
    outcome, _ = run(graphs.plain(), tmp_path, bits=2, min_output_sqnr_db=100)
    assert any("not enough" in note for note in outcome.notes)
    assert "2 bits" in outcome.layers[0].note


def test_layers_that_spoil_the_outputs_get_eight_bits(tmp_path):
    model = graphs.residual()
    outcome, path = run(model, tmp_path, bits=3, min_output_sqnr_db=17)
    wide = [layer.layer for layer in outcome.layers if layer.note.startswith("8 bits")]
    assert 0 < len(wide) < 4 and any("8 bits in" in note for note in outcome.notes)
    given = graphs.feeds(model, 2)
    before, after = graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given)
    assert sqnr_db(before[0], after[0]) > 14


def test_an_excluded_layers_shared_weight_stays(tmp_path):
    outcome, path = run(graphs.shared(), tmp_path, layers={"include": ["first"]})
    assert not outcome.layers[0].changed and "second" in outcome.layers[0].note
    assert "w" in [item.name for item in onnx.load(path).graph.initializer]


@pytest.mark.parametrize("parameters", [{"bits": 4}, {"bits": 3, "symmetric": False}, {"bits": 5}])
def test_the_forecast_tells_the_size(parameters, tmp_path):
    model, _ = weights("matmul", rows=200, width=320)
    step = QuantizeWeights(block_size=32, storage="folded", **parameters)
    before = summarise(graphs.opened(model, tmp_path), size_bytes=(tmp_path / "original.onnx").stat().st_size)
    _, path = run(model, tmp_path, block_size=32, storage="folded", **parameters)
    assert step.forecast(before, {}).model_after.size_bytes == pytest.approx(path.stat().st_size, rel=0.1)


def test_int8_in_blocks_is_not_the_plain_int8(tmp_path):
    outcome, path = run(graphs.plain(), tmp_path, bits=8, block_size=32)
    assert "8 bits in blocks of 32" in outcome.layers[0].note
    given = graphs.feeds(graphs.plain(), 4)
    before, after = graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given)
    assert sqnr_db(before[0], after[0]) > 36


@pytest.mark.parametrize("symmetric", [True, False])
def test_where_bits_cannot_be_taken_apart_codes_take_bytes(symmetric, tmp_path, monkeypatch):
    from compression.quantization.narrow import run as module

    def refuse(*_):
        raise NotApplicable("Foo has no newer form")

    monkeypatch.setattr(module, "upgrade_opset", refuse)
    model, matrix = weights("matmul", width=70)
    model.opset_import[0].version = 9
    outcome, path = run(model, tmp_path, bits=3, symmetric=symmetric)
    assert "byte for each code" in outcome.layers[0].note and "Foo" in outcome.notes[0]
    assert onnx.load(path).opset_import[0].version == 9
    values = round_to_nearest(matrix, Scheme(bits=3, block=16, symmetric=symmetric)).values()
    seen = graphs.answers(path, {"x": np.eye(70, dtype=np.float32)})[0].T
    np.testing.assert_allclose(seen, values, rtol=1e-6, atol=1e-8)


def test_stacked_matrices_get_a_grid_each(tmp_path):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="m")
    stack = [graphs.weight("w", 3, 64, 48)]
    model = graphs.build(
        [node], stack, [("x", TensorProto.FLOAT, [3, "n", 64])], [("y", TensorProto.FLOAT, [3, "n", 48])]
    )
    _, path = run(model, tmp_path, samples=0, algorithm="hqq")
    given = {"x": np.random.default_rng(0).normal(size=(3, 5, 64)).astype(np.float32)}
    before, after = graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given)
    assert sqnr_db(before[0], after[0]) > 20
