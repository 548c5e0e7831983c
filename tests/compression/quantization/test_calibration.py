"""Calibration through onnxruntime: what a model leaves of its tensors, against the tensors themselves."""

import math
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper

from compression.errors import DataMismatch
from compression.graph import infer_shapes
from compression.quantization.calibration import calibrate, sampling_error
from compression.quantization.ranges.derived import derive
from compression.quantization.ranges.error import Integers
from compression.quantization.ranges.rules import Rule
from tests.compression.quantization import graphs

RULES = ["minmax", "moving_average", "percentile", "entropy", "mse"]


def chain(dtype=TensorProto.FLOAT, shape=("n", "k")):
    """x -> Mul -> a -> Relu -> r -> Sigmoid -> s -> Reshape -> y."""
    one = helper.make_node(
        "Constant", [], ["flat"], value=helper.make_tensor("t", TensorProto.INT64, [1], [-1])
    )
    nodes = [
        helper.make_node("Mul", ["x", "x2"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Sigmoid", ["r"], ["s"]),
        one,
        helper.make_node("Reshape", ["s", "flat"], ["y"]),
    ]
    inputs = [("x", dtype, list(shape)), ("x2", dtype, list(shape))]
    return graphs.build(nodes, [], inputs, [("y", dtype, None)])


def values_of(model, *names):
    every = {value.name: value for graph in model.graphs() for node in graph for value in node.outputs} | {
        value.name: value for value in model.graph.inputs
    }
    return [every[name] for name in names]


def learned(proto, feeds, names, folder, threads=1, **options):
    model = graphs.opened(proto, folder)
    before = [value.name for value in model.graph.outputs]
    context = replace(graphs.context(folder), threads=threads)
    seen = calibrate(model, values_of(model, *names), feeds, context, expected=len(feeds), **options)
    assert [value.name for value in model.graph.outputs] == before
    return seen


def pairs(shapes, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return [{name: rng.normal(size=shape).astype(dtype) for name in ("x", "x2")} for shape in shapes]


@pytest.mark.parametrize("threads", [1, 3])
def test_small_tensors_are_taken_whole(threads, tmp_path):
    feeds = pairs([(3, 7), (1, 5), (0, 4), (4, 100), (2, 2)])
    seen = learned(chain(), feeds, ["x", "a", "r", "s", "y"], tmp_path, threads)
    assert (seen.batches, seen.refused) == (5, {})
    products = np.concatenate([(feed["x"] * feed["x2"]).reshape(-1) for feed in feeds])
    inputs = np.concatenate([feed["x"].reshape(-1) for feed in feeds])
    sigmoids = 1 / (1 + np.exp(-np.maximum(products, 0)))
    expected = {"x": inputs, "a": products, "r": np.maximum(products, 0), "s": sigmoids, "y": sigmoids}
    for name, values in expected.items():
        found = seen.statistics[name].distribution()
        assert found.total == values.size
        assert found.zeros == np.sum(values == 0)
        np.testing.assert_allclose([found.low, found.high], [values.min(), values.max()], rtol=1e-6)
        assert abs(found.quantile(0.5) - np.sort(values)[(values.size - 1) // 2]) <= found.width * 1.001


def test_large_tensors_are_drawn_from_within_the_bound_and_extremes_stay_exact(tmp_path):
    feeds = pairs([(100, 700)] * 6, seed=5)
    seen = learned(chain(), feeds, ["a"], tmp_path, fewest=3000)
    values = np.sort(np.concatenate([(feed["x"] * feed["x2"]).reshape(-1) for feed in feeds]))
    found = seen.statistics["a"].distribution()
    assert seen.drawn == 8192
    assert (found.low, found.high) == (values[0], values[-1])
    assert found.total == pytest.approx(values.size, rel=1e-3)
    shares = np.linspace(0.01, 0.99, 25)
    bound = sampling_error(6 * seen.drawn, thresholds=25, failure=1e-6)
    for share in shares:
        cut = np.searchsorted(values, found.quantile(share)) / values.size
        assert abs(cut - share) < bound + 1e-3
    assert bound < 0.015


def test_draws_are_unbiased_and_independent_of_position(tmp_path):
    """Values that only depend on where they stand: a stride would see one of them only."""
    x = np.tile(np.arange(8, dtype=np.float32), (512, 64))
    feeds = [{"x": x, "x2": np.ones_like(x)}] * 4
    found = learned(chain(), feeds, ["a"], tmp_path).statistics["a"].distribution()
    places = ((np.arange(8) - found.start) / found.width).astype(int)
    counts = found.counts[np.minimum(places, 4095)]
    assert counts.sum() == pytest.approx(x.size * 4)
    # Standard deviation of a share of 1/8 over 32768 draws: 0.0018.
    np.testing.assert_allclose(counts / counts.sum(), 1 / 8, atol=0.01)


def test_shapes_that_a_file_declares_wrongly_do_no_harm(tmp_path):
    one = helper.make_node(
        "Constant", [], ["two"], value=helper.make_tensor("t", TensorProto.INT64, [2], [1, 2])
    )
    nodes = [
        helper.make_node("Neg", ["x"], ["a"]),
        one,
        helper.make_node("Tile", ["a", "two"], ["y"]),
        helper.make_node("Abs", ["y"], ["z"]),
    ]
    model = graphs.build(nodes, [], [graphs.X], [("z", TensorProto.FLOAT, ["n", 64])])
    model.graph.value_info.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64]))
    feeds = [graphs.feeds(model, 300)]
    seen = learned(model, feeds, ["x", "a", "y", "z"], tmp_path, fewest=100_000).statistics
    assert [seen[name].distribution().total for name in ("x", "a", "y", "z")] == [19200, 19200, 38400, 38400]


def test_the_bound_is_hoeffdings():
    assert sampling_error(1000, failure=0.05) == pytest.approx(math.sqrt(math.log(40) / 2000))
    rng = np.random.default_rng(0)
    misses = 0
    for _ in range(2000):
        misses += abs(rng.random(200).__lt__(0.3).mean() - 0.3) > sampling_error(200, failure=0.05)
    assert misses <= 2000 * 0.05


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_types(dtype, tmp_path):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    feeds = pairs([(4, 4)] * 2, dtype)
    seen = learned(chain(kind), feeds, ["a", "r"], tmp_path).statistics
    products = np.stack([feed["x"] * feed["x2"] for feed in feeds]).astype(np.float32)
    # The runtime computes float16 in float32 and may not round in between.
    assert seen["a"].distribution().high == pytest.approx(products.max(), rel=1e-3)
    assert seen["a"].distribution().total == products.size
    assert seen["r"].distribution().high == seen["a"].distribution().high


def test_integer_inputs(tmp_path):
    model = graphs.embedding()
    feeds = [graphs.feeds(model, count, seed=count) for count in (3, 9)]
    seen = learned(model, feeds, ["e"], tmp_path)
    table = onnx_array(model, "table")
    values = np.concatenate([table[feed["ids"]] for feed in feeds])
    assert seen.extremes()["e"].low == values.min()
    assert seen.extremes()["e"].high == values.max()


def onnx_array(model, name):
    from onnx import numpy_helper

    return next(numpy_helper.to_array(item) for item in model.graph.initializer if item.name == name)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("drawing", [True, False])
def test_nan_and_infinity_are_refused_by_name(bad, drawing, tmp_path):
    feeds = pairs([(50, 300)] * 3)
    feeds[1]["x"][17, 33] = bad
    feeds[1]["x2"][:] = 1
    seen = learned(chain(), feeds, ["x", "x2", "a", "r", "s"], tmp_path, drawing=drawing)
    # A Sigmoid of infinity is finite, and so is a Relu of what lies below.
    finite = {np.inf: {"x2", "s"}, -np.inf: {"x2", "r", "s"}}.get(bad, {"x2"})
    assert (set(seen.statistics), set(seen.refused)) == (finite, {"x", "x2", "a", "r", "s"} - finite)
    assert "'a'" in seen.refused["a"]


def branches():
    """If c: (x + x) else: (If d: x * 3 else: -x), each with a Relu behind it."""

    def body(name, op_type, other, node=None):
        nodes = (
            [node] if node else [helper.make_node(op_type, ["x", other] if other else ["x"], [f"{name}_v"])]
        )
        nodes.append(helper.make_node("Relu", [f"{name}_v"], [f"{name}_r"]))
        out = helper.make_tensor_value_info(f"{name}_r", TensorProto.FLOAT, None)
        return helper.make_graph(nodes, name, [], [out])

    inner = helper.make_node(
        "If", ["d"], ["e_v"], then_branch=body("t", "Mul", "three"), else_branch=body("f", "Neg", None)
    )
    outer = helper.make_node(
        "If", ["c"], ["y"], then_branch=body("a", "Add", "x"), else_branch=body("e", None, None, inner)
    )
    three = helper.make_tensor("three", TensorProto.FLOAT, [], [3.0])
    flags = [("c", TensorProto.BOOL, []), ("d", TensorProto.BOOL, [])]
    return graphs.build([outer], [three], [graphs.X, *flags], [graphs.Y])


def test_bodies_of_if_are_seen_where_they_run(tmp_path):
    x = np.arange(64, dtype=np.float32)[None]
    feeds = [
        {"x": x * scale, "c": np.array(c), "d": np.array(d)}
        for scale, c, d in ((1, True, True), (2, False, True), (4, False, True), (0.5, True, False))
    ]
    seen = learned(branches(), feeds, ["a_v", "t_v", "f_v", "e_v", "x"], tmp_path)
    extremes = seen.extremes()
    assert (extremes["a_v"].low, extremes["a_v"].high) == (0, 126)
    assert (extremes["t_v"].low, extremes["t_v"].high) == (0, 3 * 4 * 63)
    assert (extremes["e_v"].low, extremes["e_v"].high) == (0, 3 * 4 * 63)
    assert "'f_v' holds no value" in seen.refused["f_v"]
    assert [seen.statistics[name].distribution().total for name in ("a_v", "t_v", "x")] == [128, 128, 256]


def test_outputs_of_one_node(tmp_path):
    nodes = [
        helper.make_node("Split", ["x"], ["left", "right"], axis=1),
        helper.make_node("Add", ["left", "right"], ["y"]),
    ]
    model = graphs.build(nodes, [], [graphs.X], [("y", TensorProto.FLOAT, ["n", 32])])
    feeds = [graphs.feeds(model, 3)]
    seen = learned(model, feeds, ["right", "left", "y"], tmp_path).extremes()
    assert (seen["left"].high, seen["right"].low) == (
        feeds[0]["x"][:, :32].max(),
        feeds[0]["x"][:, 32:].min(),
    )


def test_a_tensor_without_values_has_no_range(tmp_path):
    seen = learned(chain(), pairs([(0, 3)] * 2), ["x", "s", "y"], tmp_path)
    assert seen.statistics == {}
    assert set(seen.refused) == {"x", "s", "y"}


def test_loops_are_left_out(tmp_path):
    state = helper.make_tensor_value_info("s", TensorProto.FLOAT, ["n", 64])
    body = helper.make_graph(
        [
            helper.make_node("Add", ["s", "x"], ["inside"]),
            helper.make_node("Identity", ["go"], ["again"]),
            helper.make_node("Relu", ["inside"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            state,
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["n", 64]),
        ],
    )
    times = helper.make_tensor("times", TensorProto.INT64, [], [2])
    model = graphs.build(
        [helper.make_node("Loop", ["times", "", "x"], ["y"], body=body)], [times], [graphs.X], [graphs.Y]
    )
    seen = learned(model, [graphs.feeds(model, 2)], ["inside", "y"], tmp_path)
    assert set(seen.statistics) == {"y"}


def test_one_run_answers_every_rule(tmp_path):
    model = graphs.residual(13)
    feeds = [graphs.feeds(model, seed=seed) for seed in range(4)]
    seen = learned(model, feeds, ["x", "r1", "a", "r2", "g"], tmp_path)
    for name in RULES:
        for bounds in seen.ranges(Rule(ranges=name, integers=Integers(dtype=np.uint8))).values():
            assert bounds.low < bounds.high


def test_results_depend_on_neither_threads_nor_the_run(tmp_path):
    feeds = pairs([(200, 300)] * 5)
    first, second = (learned(chain(), feeds, ["a", "s"], tmp_path, threads) for threads in (1, 2))
    for name in ("a", "s"):
        np.testing.assert_array_equal(first.statistics[name].counts, second.statistics[name].counts)


def test_a_model_that_fails_says_so(tmp_path):
    with pytest.raises(DataMismatch):
        learned(
            chain(), [{"x": np.ones((2, 3), np.float32), "x2": np.ones((5, 4), np.float32)}], ["a"], tmp_path
        )


def test_nothing_to_observe_runs_nothing(tmp_path):
    assert learned(chain(), pairs([(1, 1)]), [], tmp_path).batches == 0


def test_tensors_of_the_same_values_share_their_statistics(tmp_path):
    seen = learned(chain(), pairs([(2, 3)]), ["s", "y"], tmp_path).statistics
    assert seen["s"] is seen["y"]


def test_only_functions_that_never_fall_are_derived(tmp_path):
    model = infer_shapes(graphs.opened(chain(), tmp_path))
    found = derive(values_of(model, "a", "r", "s", "y"))
    assert {name: item.source for name, item in found.items()} == {"r": "a", "s": "a", "y": "a"}
    assert found["y"].function is not None
    np.testing.assert_allclose(
        found["y"].function(np.array([-1.0, 2.0])), [0.5, 1 / (1 + np.exp(-2))], rtol=1e-6
    )
    assert derive(values_of(model, "s", "a")) == {}
