"""Which nodes count as layers, with which weights, and how much they multiply."""

import sys

import numpy as np
import onnx_ir as ir
import pytest

from compression.errors import ResultRejected
from compression.graph import (
    check_same_interface,
    fresh_name,
    interface,
    layers,
    load,
    replace_weight,
    save,
    shared_weights,
    summarise,
)
from tests.compression.graph.running import answers, random, write
from tests.compression.models import small_model

HEADER = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>\n'


def summary_of(tmp_path, text, **weights):
    return summarise(load(write(tmp_path / "m.onnx", HEADER + text, **weights)), size_bytes=1)


def test_a_convolutional_network(tmp_path):
    summary = summarise(load(small_model(tmp_path / "m.onnx")), size_bytes=5)
    assert [layer.name for layer in summary.layers] == ["conv1", "bn1", "conv2", "fc"]
    assert [weight.name for weight in summary.layer("conv1").weights] == ["conv1.w", "conv1.b"]
    assert summary.layer("conv1").macs == 8 * 8 * 8 * 3 * 9
    assert summary.layer("fc").macs == 80
    assert summary.macs == 13824 + 36864 + 80
    assert summary.macs_complete
    assert summary.parameters == 8 * 27 + 8 + 4 * 8 + 8 * 72 + 8 + 80 + 10
    assert summary.weight_bytes == 4 * summary.parameters
    assert (summary.opset, summary.size_bytes, summary.quantized) == (17, 5, False)


CHAINS = {
    "dequantized": "w = DequantizeLinear(q, scale, zero) y = MatMul(x, w)",
    "cast and scaled": "f = Cast<to=1>(q) w = Mul(f, scale) y = MatMul(x, w)",
    "cast, shifted, scaled": "f = Cast<to=1>(q) a = Cast<to=1>(zero) d = Sub(f, a) w = Mul(scale, d) "
    "y = MatMul(x, w)",
    "transposed": "t = Transpose(q) d = DequantizeLinear(t, scale, zero) w = Transpose(d) y = MatMul(x, w)",
    "integer kernel": "u = Cast<to=3>(x) i = MatMulInteger(u, q) y = Cast<to=1>(i)",
}


@pytest.mark.parametrize("case", CHAINS)
def test_the_stored_weight_is_found_behind_a_chain(tmp_path, case):
    weights = {
        "q": np.arange(-6, 6, dtype=np.int8).reshape(4, 3),
        "scale": np.asarray(0.1, np.float32),
        "zero": np.asarray(0, np.int8),
    }
    used = {name: array for name, array in weights.items() if name in CHAINS[case]}
    summary = summary_of(tmp_path, f"g (float[N,4] x) => (float[N,3] y) {{ {CHAINS[case]} }}", **used)
    (layer,) = summary.layers
    assert (layer.weight.name, layer.weight.dtype, layer.weight.shape) == ("q", "int8", (4, 3))
    assert layer.weight.zeros == 1
    assert layer.macs == 12
    assert summary.parameters == 12


@pytest.mark.parametrize("behind", ["weight", "input"])
def test_a_chain_deeper_than_the_stack(tmp_path, behind):
    """Behind the weight it is followed to its end; on the other side it ends in no weight."""
    first, last = ("w", "x") if behind == "weight" else ("x", "w")
    steps = 2 * sys.getrecursionlimit()
    chain = " ".join(f"c{step + 1} = Identity(c{step})" for step in range(steps))
    product = f"MatMul({last}, c{steps})" if behind == "weight" else f"MatMul(c{steps}, {last})"
    text = f"g (float[N,4] x) => (float[N,3] y) {{ c0 = Identity({first}) {chain} y = {product} }}"
    (layer,) = layers(load(write(tmp_path / "m.onnx", HEADER + text, w=random(4, 3))))
    assert [weight.name for weight in layer.weights] == ["w"]


def test_settings_and_shapes_are_no_weights(tmp_path):
    text = """g (float[1,2,4,4] x) => (float[A,B,C,D] y) {
        r = Resize<mode="nearest">(x, , scales) p = Pad(r, pads) y = Mul(p, half) }"""
    summary = summary_of(
        tmp_path,
        text,
        scales=np.asarray([1, 1, 2, 2], np.float32),
        pads=np.zeros(8, np.int64),
        half=np.asarray(0.5, np.float32),
    )
    assert summary.layers == ()
    assert summary.parameters == 0


def test_weights_in_constant_nodes_and_bodies(tmp_path):
    text = """g (float[N,2] x, bool flag) => (float[N,2] y) {
        y = If(flag) <then_branch = t () => (float[N,2] u) {
                          w = Constant<value = float[2,2] {1.0,2.0,3.0,4.0}>() u = MatMul(x, w) },
                      else_branch = e () => (float[N,2] o) {
                          w = Constant<value = float[2,2] {1.0,0.0,0.0,1.0}>() o = MatMul(x, w) }> }"""
    path = write(tmp_path / "m.onnx", HEADER + text)
    model = load(path)
    found = layers(model)
    assert len(found) == 2
    assert len({layer.name for layer in found} | {layer.weights[0].name for layer in found}) == 4
    assert {layer.scope for layer in found} == {"If_0.then_branch", "If_0.else_branch"}
    replace_weight(found[0], ir.tensor(np.zeros((2, 2), np.float32)))
    (saved,) = save(model, tmp_path / "out.onnx")
    x = random(3, 2)
    outputs = [answers(saved, {"x": x, "flag": np.asarray(flag)})["y"] for flag in (True, False)]
    np.testing.assert_array_equal(outputs[0], np.zeros((3, 2)))
    np.testing.assert_array_equal(outputs[1], x)


def test_shared_weights_tell_all_their_layers(tmp_path):
    text = "g (float[N,4] x) => (float[N,4] y) { h = MatMul(x, w) y = MatMul(h, w) }"
    model = load(write(tmp_path / "m.onnx", HEADER + text, w=random(4, 4)))
    ((value, owners),) = shared_weights(model).items()
    assert value.name == "w"
    assert [owner.name for owner in owners] == [layer.name for layer in layers(model)]
    assert summarise(model, size_bytes=1).parameters == 16


MACS = {
    "lstm": (
        "g (float[7,2,5] x) => (float[A,B,C,D] y) { y = LSTM<hidden_size=3>(x, w, r) }",
        {"w": random(1, 12, 5), "r": random(1, 12, 3)},
        7 * (12 * 5 + 12 * 3) * 2,
    ),
    "transposed convolution": (
        "g (float[N,3,5,5] x) => (float[A,B,C,D] y) { y = ConvTranspose<strides=[2,2]>(x, w) }",
        {"w": random(3, 4, 2, 2)},
        75 * 16,
    ),
    "grouped convolution": (
        "g (float[N,4,6,6] x) => (float[A,B,C,D] y) { y = Conv<group=4>(x, w) }",
        {"w": random(4, 1, 3, 3)},
        4 * 16 * 9,
    ),
    "product of two activations": (
        "g (float[N,2,6,4] x) => (float[A,B,C,D] y) { t = Transpose<perm=[0,1,3,2]>(x) y = MatMul(x, t) }",
        {},
        2 * 6 * 6 * 4,
    ),
    "einsum": (
        'g (float[N,6,4] x) => (float[A,B,C] y) { y = Einsum<equation="bij,jk->bik">(x, w) }',
        {"w": random(4, 5)},
        6 * 4 * 5,
    ),
    "4-bit blocks": (
        """g (float[N,32] x) => (float[N,8] y) {
           y = com.microsoft.MatMulNBits<K=32, N=8, bits=4, block_size=32>(x, q, s) }""",
        {"q": np.zeros((8, 1, 16), np.uint8), "s": random(8)},
        32 * 8,
    ),
    "a batch of four": (
        "g (float[4,8] x) => (float[4,2] y) { y = MatMul(x, w) }",
        {"w": random(8, 2)},
        16,
    ),
}


@pytest.mark.parametrize("case", MACS)
def test_multiplications_of_one_sample(tmp_path, case):
    text, weights, expected = MACS[case]
    summary = summary_of(tmp_path, text, **weights)
    assert (summary.macs, summary.macs_complete) == (expected, True)


def test_unknown_sizes_are_said_to_be_unknown(tmp_path):
    text = "g (float[N,3,H,W] x) => (float[A,B,C,D] y) { y = Conv(x, w) }"
    summary = summary_of(tmp_path, text, w=random(4, 3, 3, 3))
    assert (summary.macs, summary.macs_complete) == (None, False)


def test_an_interface_that_differs_is_rejected(tmp_path):
    model = load(small_model(tmp_path / "m.onnx"))
    before = interface(model)
    assert before[0][0].shape == ("batch", 3, 8, 8)
    check_same_interface(before, interface(model))
    model.graph.inputs[0].shape = ir.Shape([1, 3, 8, 8])
    with pytest.raises(ResultRejected, match="image"):
        check_same_interface(before, interface(model))


def test_fresh_names_are_borne_by_nothing(tmp_path):
    model = load(small_model(tmp_path / "m.onnx"))
    assert fresh_name(model, "new") == "new"
    assert fresh_name(model, "conv1.w") == "conv1.w_1"
    assert fresh_name(model, "conv1") == "conv1_1"
