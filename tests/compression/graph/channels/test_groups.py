"""What groups say of themselves, what is locked and why, and what cutting refuses."""

import numpy as np
import onnx_ir as ir
import pytest

from compression.errors import NotApplicable
from compression.graph import load, save
from compression.graph.channels import TOLERANCE, cut, find_groups, prove, rounding, silence
from tests.compression.graph.channels.cutting import cut_and_prove, written
from tests.compression.graph.running import answers, random
from tests.compression.models import images, small_model

X = {"x": random(2, 6)}
IMAGE = {"x": random(2, 3, 8, 8)}
W = {"w": random(6, 12), "v": random(12, 4, seed=1)}
K = {"w": random(12, 3, 3, 3), "v": random(4, 12, 3, 3, seed=1)}


def test_a_chain_of_convolutions(tmp_path):
    """The slots, by hand: conv1 - bn1 - conv2 - fc."""
    grouping = find_groups(load(small_model(tmp_path / "m.onnx")))
    first, second = grouping.groups
    assert (first.id, first.size, first.unit, first.multiple) == ("conv1", 8, "channel", 1)
    assert first.layers == ("conv1", "bn1", "conv2")
    assert [(slot.value.name, slot.axis) for slot in first.producers] == [("conv1.w", 0)]
    assert [(slot.value.name, slot.axis) for slot in first.consumers] == [("conv2.w", 1)]
    names = {slot.value.name for slot in first.others}
    assert names == {"conv1.b", "bn1.gamma", "bn1.beta", "bn1.mean", "bn1.var"}
    assert [(slot.value.name, slot.axis) for slot in first.activations] == [("c1", 1)]
    for slot in (*first.slots, *first.activations):
        np.testing.assert_array_equal(slot.indices, np.arange(8)[:, None])
    assert second.layers == ("conv2", "fc")
    assert [(item.layer, item.partly) for item in grouping.locked] == [("fc", False)]
    assert "'logits'" in grouping.locked[0].reason


def test_a_flattened_channel_takes_several_rows(tmp_path):
    body = "h = Conv(x, w) f = Flatten(h) y = MatMul(f, v)"
    path = written(tmp_path, body, IMAGE, {"w": K["w"], "v": random(432, 4)})
    (group,) = find_groups(load(path)).groups
    (consumer,) = group.consumers
    np.testing.assert_array_equal(consumer.indices, np.arange(432).reshape(12, 36))


def test_heads_cross_the_dimensions_inside_them(tmp_path):
    body = "h = MatMul(x, w) r = Reshape(h, shape) m = Mul(r, s) f = Flatten(m) y = MatMul(f, v)"
    weights = {**W, "shape": np.asarray([0, 3, 4]), "s": random(3, 4)}
    heads, inside = find_groups(load(written(tmp_path, body, X, weights))).groups
    assert (heads.size, inside.size) == (3, 4)
    assert (heads.crosses, inside.crosses) == ((inside.id,), (heads.id,))
    np.testing.assert_array_equal(heads.producers[0].indices, np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(inside.producers[0].indices, np.arange(12).reshape(3, 4).T)


LOCKED = {
    "Softmax": ("h = Softmax(g)", "Softmax 'Softmax_0' runs over them"),
    "LayerNormalization": ("h = LayerNormalization(g, s)", "takes its statistics over them"),
    "RMS by hand": (
        "p = Mul(g, g) m = ReduceMean(p, axis) h = Div(g, m)",
        "ReduceMean 'ReduceMean_0' is taken over",
    ),
    "ArgMax": (
        "m = ArgMax<axis=1>(g) c = Cast<to=1>(m) h = Mul(g, c)",
        "ArgMax 'ArgMax_0' is taken over them",
    ),
    "TopK": ("h, i = TopK(g, twelve)", "TopK 'TopK_0' ranks them"),
    "CumSum": ("h = CumSum(g, one)", "CumSum 'CumSum_0' runs over them"),
    "no rule": ("h = GatherElements<axis=1>(g, places)", "GatherElements 'GatherElements_0' has no rule"),
    "a dynamic range": (
        "q, a, z = DynamicQuantizeLinear(g) h = DequantizeLinear(q, a, z)",
        "DynamicQuantizeLinear 'DynamicQuantizeLinear_0' measures the range",
    ),
}


@pytest.mark.parametrize("case", LOCKED)
def test_locked_with_the_reason(case, tmp_path):
    middle, reason = LOCKED[case]
    weights = {**W, "s": random(12), "axis": np.asarray([1]), "one": np.int64(1), "twelve": np.asarray([12])}
    weights["places"] = np.zeros((2, 12), np.int64)
    path = written(tmp_path, f"g = MatMul(x, w) {middle} y = MatMul(h, v)", X, weights)
    grouping = find_groups(load(path))
    assert grouping.groups == ()
    found = {item.layer: item.reason for item in grouping.locked}
    assert reason in found["MatMul_0"]


def test_inputs_and_outputs_are_locked(tmp_path):
    path = written(tmp_path, "h = MatMul(x, w) y = Relu(h) k = MatMul(h, v) z = Relu(k)", X, W, outputs="y z")
    assert find_groups(load(path)).groups == ()


def test_what_a_caller_may_override_is_locked(tmp_path):
    body = "h = MatMul(x, w) b = Add(h, c) y = MatMul(b, v)"
    path = written(tmp_path, body, {**X, "c": random(12)}, W)
    (item, _) = find_groups(load(path)).locked
    assert item.reason == "the input 'c' has them"


def test_a_partly_locked_layer(tmp_path):
    """Half of the outputs goes through Softmax."""
    halves = "h = MatMul(x, w) p, q = Split<axis=1, num_outputs=2>(h) s = Softmax(p)"
    body = f"{halves} c = Concat<axis=1>(s, q) y = MatMul(c, v)"
    path = written(tmp_path, body, X, W)
    grouping = find_groups(load(path))
    assert [group.size for group in grouping.groups] == [6]
    assert [(item.layer, item.partly) for item in grouping.locked] == [
        ("MatMul_0", True),
        ("MatMul_1", False),
    ]
    cut_and_prove(path, X)


def test_weights_inside_bodies_are_cut(tmp_path):
    """What flows in or out stays; tensors stored outside are as good inside."""
    body = """h = MatMul(x, w) r = Relu(h) y = If(flag)
        <then_branch = t () => (float[N,4] u) { a = MatMul(r, q) b = Relu(a) u = MatMul(b, v) },
         else_branch = e () => (float[N,4] o) { c = MatMul(r, p) d = Neg(c) o = MatMul(d, v) }>"""
    weights = {"w": W["w"], "q": random(12, 10), "p": random(12, 10, seed=3), "v": random(10, 4)}
    path = written(tmp_path, body, {**X, "flag": np.asarray(True)}, weights)
    grouping = find_groups(load(path))
    assert [group.size for group in grouping.groups] == [10]
    assert "reads them in a body" in next(item.reason for item in grouping.locked if item.layer == "MatMul_0")
    for flag in (True, False):
        cut_and_prove(path, {**X, "flag": np.asarray(flag)})


def test_a_loop_keeps_its_state(tmp_path):
    body = """y = Loop(trips, , x) <body = b (int64 i, bool c, float[N,6] s) => (bool k, float[N,6] t)
        { k = Identity(c) h = MatMul(s, w) r = Relu(h) t = MatMul(r, v) }>"""
    path = written(tmp_path, body, X, {"trips": np.int64(3), "w": W["w"], "v": random(12, 6)})
    assert [group.size for group in find_groups(load(path)).groups] == [12]
    cut_and_prove(path, X)


def test_a_half_precision_model(tmp_path):
    """Everything is as in float32 but the rounding."""
    path, half = small_model(tmp_path / "m.onnx", dtype=np.float16), {"image": images(2).astype(np.float16)}
    original, model = load(path), load(path)
    chosen = {group.id: range(0, group.size, 2) for group in find_groups(model).groups}
    cut(model, chosen)
    assert prove(original, model, chosen, half) < 2e-3


REFUSED = {
    "no such group": {"conv9": [0]},
    "no such unit": {"conv1": [8]},
    "a negative unit": {"conv1": [-1]},
    "all units": {"conv1": range(8), "conv2": [0]},
    "all units of the last": {"conv1": [0], "conv2": [0, 1, 2, 3, 4, 5, 6, 7]},
}


@pytest.mark.parametrize("case", REFUSED)
def test_nothing_is_changed_when_it_cannot_be_done(case, tmp_path):
    path = small_model(tmp_path / "m.onnx")
    model = load(path)
    before = save(model, tmp_path / "before.onnx")[0].read_bytes()
    for change in (cut, silence):
        with pytest.raises(NotApplicable, match=r"conv"):
            change(model, REFUSED[case])
    assert save(model, tmp_path / "after.onnx")[0].read_bytes() == before


def test_a_group_of_this_name(tmp_path):
    grouping = find_groups(load(small_model(tmp_path / "m.onnx")))
    assert grouping.group("conv2").size == 8
    with pytest.raises(KeyError):
        grouping.group("conv9")


def test_the_proof_finds_a_wrong_cut(tmp_path):
    path = small_model(tmp_path / "m.onnx")
    original, model, feeds = load(path), load(path), {"image": images(2)}
    cut(model, {"conv1": [1], "conv2": [2]})
    assert prove(original, model, {"conv1": [1], "conv2": [2]}, feeds) <= TOLERANCE
    assert prove(original, model, {"conv1": [2], "conv2": [2]}, feeds) > 1e-3
    weight = model.graph.initializers["conv2.w"]
    weight.const_value = ir.tensor(weight.const_value.numpy()[:, ::-1].copy(), name="conv2.w")
    assert prove(original, model, {"conv1": [1], "conv2": [2]}, feeds) > 1e-3


def test_the_proof_looks_behind_a_sigmoid(tmp_path):
    """All outputs saturate at 1: the difference shows before them only."""
    body = "h = MatMul(x, w) k = MatMul(h, v) b = Add(k, c) y = Sigmoid(b)"
    path = written(tmp_path, body, X, {**W, "c": np.float32(90)})
    original, model = load(path), load(path)
    cut(model, {"MatMul_0": [3]})
    assert prove(original, model, {"MatMul_0": [3]}, X) <= TOLERANCE
    assert prove(original, model, {"MatMul_0": [4]}, X) > 10 * TOLERANCE


def test_silence_keeps_shapes_and_changes_answers(tmp_path):
    path = small_model(tmp_path / "m.onnx")
    model, feeds = load(path), {"image": images(2)}
    silence(model, {"conv1": [0, 3]})
    for name, value in load(path).graph.initializers.items():
        assert model.graph.initializers[name].shape == value.shape
    (silent,) = save(model, tmp_path / "silent.onnx")
    difference = answers(path, feeds)["logits"] - answers(silent, feeds)["logits"]
    assert np.abs(difference).max() > 1e-3


def test_cut_again(tmp_path):
    """A cut model has groups like any other."""
    path = small_model(tmp_path / "m.onnx")
    model = load(path)
    cut(model, {"conv1": [0, 1, 2]})
    (saved,) = save(model, tmp_path / "once.onnx")
    assert [group.size for group in find_groups(load(saved)).groups] == [5, 8]
    cut_and_prove(saved, {"image": images(2)})


def test_rounding_is_small_and_not_nothing(tmp_path):
    path = small_model(tmp_path / "m.onnx")
    found = rounding(load(path), {"conv1": [0]}, {"image": images(4)})
    assert 0 < found < TOLERANCE
