"""equalize: what is rescaled, what is left and why, and outputs that stay."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compression.errors import DataMissing
from compression.method import Role
from compression.methods.equalize import Equalize
from tests.compression.quantization import graphs

KINDS = pytest.mark.parametrize("kind", ["cross_layer", "smooth"])
FLAT = ("x", TensorProto.FLOAT, ["n", 4])
IMAGE = ("x", TensorProto.FLOAT, ["n", 4, 6, 6])


def out(*shape):
    return ("y", TensorProto.FLOAT, list(shape))


def values(**shapes):
    """Initializers whose channels differ by orders of magnitude."""
    rng = np.random.default_rng(1)
    made = []
    for name, shape in shapes.items():
        array = rng.normal(size=shape)
        array *= 10.0 ** rng.uniform(-1, 1, (shape[0], *(1 for _ in shape[1:])))
        made.append(numpy_helper.from_array(array.astype(np.float32), name))
    return made


def node(kind, inputs, output, **attributes):
    domain = {"domain": attributes.pop("domain")} if "domain" in attributes else {}
    return helper.make_node(kind, inputs, [output], name=f"{kind}_{output}", **attributes, **domain)


def run(model, folder, **parameters):
    model_ir = graphs.opened(model, folder)
    outcome = Equalize(**parameters).apply(model_ir, graphs.context(folder, model))
    return outcome, graphs.written(outcome.model, folder)


def stored(path):
    return {
        item.name: numpy_helper.to_array(item).astype(np.float64)
        for item in onnx.load(path).graph.initializer
    }


def same_outputs(model, folder, path):
    given = graphs.feeds(model, 3, seed=5)
    for before, after in zip(
        graphs.answers(folder / "original.onnx", given), graphs.answers(path, given), strict=True
    ):
        # Float32 rounds every product anew: a few parts in a million of the largest value.
        np.testing.assert_allclose(after, before, rtol=0, atol=2e-5 * np.abs(before).max())


def chain():
    """Conv - LeakyRelu - depthwise Conv - MaxPool - Conv - Relu - Flatten - Gemm - PRelu - MatMul + Add."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], "a", pads=[1, 1, 1, 1]),
        node("LeakyRelu", ["a"], "b", alpha=0.1),
        node("Conv", ["b", "w2", "b2"], "c", group=6, pads=[1, 1, 1, 1]),
        node("MaxPool", ["c"], "d", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["d", "w3"], "e"),
        node("Relu", ["e"], "f"),
        node("Flatten", ["f"], "g"),
        node("Gemm", ["g", "w4", "b4"], "h", transB=1),
        node("PRelu", ["h", "slope"], "i"),
        node("MatMul", ["i", "w5"], "j"),
        node("Add", ["j", "b5"], "y"),
    ]
    weights = values(
        w1=(6, 4, 3, 3),
        b1=(6,),
        w2=(6, 1, 3, 3),
        b2=(6,),
        w3=(5, 6, 2, 2),
        w4=(7, 20),
        b4=(7,),
        slope=(7,),
        w5=(7, 3),
        b5=(3,),
    )
    return graphs.build(nodes, weights, [IMAGE], [out("n", 3)])


def norm_block(*, opset=17, decomposed=False, residual=False):
    """A normalization read by two products; `residual` adds what it gives to their sum."""
    mean = [
        node("ReduceMean", ["x"], "mean", axes=[-1]),
        node("Sub", ["x", "mean"], "centred"),
        node("Mul", ["centred", "gamma"], "scaled"),
        node("Add", ["scaled", "beta"], "l"),
    ]
    whole = [node("LayerNormalization", ["x", "gamma", "beta"], "l")]
    products = [
        node("MatMul", ["l", "q"], "lq"),
        node("MatMul", ["l", "k"], "lk"),
        node("Add", ["lq", "lk"], "s"),
    ]
    last = [node("Add", ["s", "l"], "y")] if residual else [node("Relu", ["s"], "y")]
    weights = values(gamma=(4,), beta=(4,), q=(4, 4), k=(4, 4))
    return graphs.build(
        [*(mean if decomposed else whole), *products, *last], weights, [FLAT], [out("n", 4)], opset=opset
    )


@KINDS
def test_a_chain_of_every_kind_keeps_its_outputs(kind, tmp_path):
    outcome, path = run(chain(), tmp_path, kind=kind)
    assert len(outcome.details["groups"]) == 4
    assert outcome.details["refused"] == {}
    weighted = [layer for layer in outcome.layers if layer.layer.startswith(("Conv", "Gemm", "MatMul"))]
    assert [layer.changed for layer in weighted] == [True] * 5
    same_outputs(chain(), tmp_path, path)


def test_cross_layer_ends_with_equal_ranges_on_both_sides(tmp_path):
    _, path = run(chain(), tmp_path, kind="cross_layer")
    after = stored(path)
    made = np.abs(after["w1"]).max((1, 2, 3))
    depthwise = np.abs(after["w2"]).max((1, 2, 3))
    read = np.abs(after["w3"]).max((0, 2, 3))
    # Sweeps end when no scale moves by more than one part in a thousand.
    np.testing.assert_allclose(made, depthwise, rtol=5e-3)
    np.testing.assert_allclose(depthwise, read, rtol=5e-3)
    flat = np.abs(after["w4"]).reshape(7, 5, 4).max((0, 2))
    np.testing.assert_allclose(np.abs(after["w3"]).max((1, 2, 3)), flat, rtol=5e-3)
    before = np.abs(stored(tmp_path / "original.onnx")["w1"]).max((1, 2, 3))
    assert np.abs(before / np.abs(stored(tmp_path / "original.onnx")["w2"]).max((1, 2, 3)) - 1).max() > 0.5


def test_smooth_by_hand_with_two_readers(tmp_path):
    model = norm_block()
    _, path = run(model, tmp_path, kind="smooth", alpha=0.7)
    before, after = stored(tmp_path / "original.onnx"), stored(path)
    x = np.concatenate([item["x"] for item in graphs.Samples(model, 8).items]).astype(np.float64)
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    peaks = np.abs(normal * before["gamma"] + before["beta"]).max(0)
    columns = np.maximum(np.abs(before["q"]).max(1), np.abs(before["k"]).max(1))
    scales = peaks**0.7 / columns**0.3
    for name, expected in {
        "gamma": before["gamma"] / scales,
        "beta": before["beta"] / scales,
        "q": before["q"] * scales[:, None],
        "k": before["k"] * scales[:, None],
    }.items():
        np.testing.assert_allclose(after[name], expected, rtol=1e-4, err_msg=name)
    same_outputs(model, tmp_path, path)


@pytest.mark.parametrize("opset", [13, 17])
def test_smooth_takes_a_normalization_in_pieces(opset, tmp_path):
    model = norm_block(opset=opset, decomposed=True)
    outcome, path = run(model, tmp_path, kind="smooth")
    assert list(outcome.details["groups"]) == ["l"]
    assert not np.allclose(stored(path)["gamma"], stored(tmp_path / "original.onnx")["gamma"], rtol=0.1)
    same_outputs(model, tmp_path, path)


def test_cross_layer_leaves_a_normalization(tmp_path):
    outcome, _ = run(norm_block(), tmp_path, kind="cross_layer")
    assert "nothing was equalized" in outcome.notes[0]
    assert "LayerNormalization_l makes it" in " ".join(layer.note for layer in outcome.layers)


def test_what_a_residual_path_reads_too_is_left(tmp_path):
    outcome, path = run(norm_block(residual=True), tmp_path, kind="smooth")
    assert not any(layer.changed for layer in outcome.layers)
    assert any("Add_y reads it too" in layer.note for layer in outcome.layers)
    before, after = stored(tmp_path / "original.onnx"), stored(path)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_shared_vector_is_copied_and_a_shared_weight_left(tmp_path):
    nodes = [
        node("LayerNormalization", ["x", "gamma", "beta"], "l1"),
        node("MatMul", ["l1", "w1"], "m1"),
        node("LayerNormalization", ["m1", "gamma", "beta"], "l2"),
        node("MatMul", ["l2", "w2"], "m2"),
        node("LayerNormalization", ["m2", "gamma", "beta"], "l3"),
        node("MatMul", ["l3", "w2"], "y"),
    ]
    weights = values(gamma=(4,), beta=(4,), w1=(4, 4), w2=(4, 4))
    model = graphs.build(nodes, weights, [FLAT], [out("n", 4)], opset=17)
    outcome, path = run(model, tmp_path, kind="smooth")
    assert list(outcome.details["groups"]) == ["l1"]
    assert any("shared with other layers" in layer.note for layer in outcome.layers)
    np.testing.assert_array_equal(stored(path)["gamma"], stored(tmp_path / "original.onnx")["gamma"])
    same_outputs(model, tmp_path, path)


@KINDS
@pytest.mark.parametrize("between", ["Sigmoid", "Clip"])
def test_what_is_not_homogeneous_is_left_with_the_reason(between, kind, tmp_path):
    extra = ["low", "high"] if between == "Clip" else []
    nodes = [
        node("Gemm", ["x", "w1"], "a"),
        node(between, ["a", *extra], "b"),
        node("Gemm", ["b", "w2"], "y"),
    ]
    limits = [
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in (("low", 0), ("high", 6))
    ]
    model = graphs.build(nodes, [*values(w1=(4, 5), w2=(5, 3)), *limits[: len(extra)]], [FLAT], [out("n", 3)])
    outcome, _ = run(model, tmp_path, kind=kind)
    assert any(
        f"{between} {between}_b in between passes no scale on" in layer.note for layer in outcome.layers
    )
    assert not any(layer.changed for layer in outcome.layers)


def test_residual_sums_of_two_layers_take_one_scale(tmp_path):
    nodes = [
        node("Conv", ["x", "w1"], "a"),
        node("Conv", ["x", "w2"], "b"),
        node("Add", ["a", "b"], "s"),
        node("Relu", ["s"], "r"),
        node("Conv", ["r", "w3"], "y"),
    ]
    model = graphs.build(
        nodes, values(w1=(5, 4, 1, 1), w2=(5, 4, 1, 1), w3=(2, 5, 1, 1)), [IMAGE], [out("n", 2, 6, 6)]
    )
    outcome, path = run(model, tmp_path, kind="cross_layer")
    assert outcome.details["groups"] == {"r": ["Conv_a", "Conv_b", "Conv_y"]}
    before, after = stored(tmp_path / "original.onnx"), stored(path)
    one, two = (np.median(before[name] / after[name], (1, 2, 3)) for name in ("w1", "w2"))
    np.testing.assert_allclose(one, two, rtol=1e-5)
    same_outputs(model, tmp_path, path)


def test_a_product_with_itself_takes_no_scale(tmp_path):
    nodes = [node("Gemm", ["x", "w1"], "a"), node("Mul", ["a", "a"], "b"), node("Gemm", ["b", "w2"], "y")]
    model = graphs.build(nodes, values(w1=(4, 5), w2=(5, 3)), [FLAT], [out("n", 3)])
    outcome, path = run(model, tmp_path, kind="cross_layer")
    assert any("takes the same tensor twice" in layer.note for layer in outcome.layers)
    same_outputs(model, tmp_path, path)


def test_a_gate_is_followed_to_the_linear_side(tmp_path):
    nodes = [
        node("Gemm", ["x", "w1"], "a"),
        node("Gemm", ["x", "w2"], "b"),
        node("Sigmoid", ["a"], "g"),
        node("Mul", ["g", "b"], "p"),
        node("Gemm", ["p", "w3"], "y"),
    ]
    model = graphs.build(nodes, values(w1=(4, 5), w2=(4, 5), w3=(5, 3)), [FLAT], [out("n", 3)])
    outcome, path = run(model, tmp_path, kind="smooth")
    assert outcome.details["groups"] == {"p": ["Gemm_b", "Gemm_y"]}
    same_outputs(model, tmp_path, path)


def test_a_layer_that_is_not_selected_holds_its_group(tmp_path):
    outcome, path = run(chain(), tmp_path, kind="cross_layer", layers={"exclude": ["Gemm_h"]})
    before, after = stored(tmp_path / "original.onnx"), stored(path)
    assert len(outcome.details["groups"]) == 2
    assert all(np.array_equal(before[name], after[name]) for name in ("w4", "b4", "w5"))


def test_a_group_that_changes_the_outputs_is_left_alone(tmp_path, monkeypatch):
    """A rule that is wrong about one reader: only its group goes."""
    from compression.equalization import rescaling

    right = rescaling._apply

    def wrong(group, scales, arrays):
        right(group, scales, arrays)
        if group.name == "i":
            group.raised[0].multiply(arrays[group.raised[0].value], np.full(group.channels, 1.01))

    monkeypatch.setattr(rescaling, "_apply", wrong)
    outcome, path = run(chain(), tmp_path, kind="smooth")
    assert list(outcome.details["refused"]) == ["i"]
    assert len(outcome.details["groups"]) == 3
    assert "the outputs would change" in outcome.notes[0]
    same_outputs(chain(), tmp_path, path)


def test_smooth_without_data_is_refused(tmp_path):
    with pytest.raises(DataMissing, match="needs calibration data"):
        Equalize(kind="smooth").apply(graphs.opened(chain(), tmp_path), graphs.context(tmp_path))
    outcome = Equalize(kind="cross_layer").apply(graphs.opened(chain(), tmp_path), graphs.context(tmp_path))
    assert any(layer.changed for layer in outcome.layers)


def test_infinity_in_the_activations_leaves_the_tensor(tmp_path):
    model = chain()
    context = graphs.context(tmp_path, model)
    context.data[Role.CALIBRATION].items[-1]["x"][:] = np.inf
    outcome = Equalize(kind="smooth").apply(graphs.opened(model, tmp_path), context)
    assert outcome.details["refused"]
    assert "NaN or infinity" in outcome.notes[0]
