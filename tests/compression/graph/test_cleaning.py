"""Cleaning keeps the answers and the interface, and folds only what is safe to fold."""

import numpy as np
import onnx_ir as ir
import pytest

from compression.graph import clean, layers, load, save
from tests.compression.graph.running import cleaned, random, write
from tests.compression.models import images, small_model

HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'


def test_batch_norm_goes_into_the_convolution(tmp_path):
    left = cleaned(small_model(tmp_path / "m.onnx"), {"image": images(4)})
    assert left["BatchNormalization"] == 0
    assert left["Conv"] == 2


def test_constants_are_folded_where_that_saves_room(tmp_path):
    text = (
        HEADER
        + """g (float[N,4] x) => (float[N,3] y) {
        t = Transpose<perm=[1,0]>(w)  u = Mul(t, two)  i = Identity(x)  d = Dropout(i)  y = MatMul(d, u) }"""
    )
    path = write(tmp_path / "m.onnx", text, w=random(3, 4), two=np.asarray(2, np.float32))
    assert cleaned(path, {"x": random(2, 4)}) == {"MatMul": 1}


def test_constants_that_would_grow_are_not_folded(tmp_path):
    text = (
        HEADER
        + """g (float[N,100] x) => (float[N,100] y) {
        c = Cast<to=1>(w)  k = ConstantOfShape(shape)  z = Add(c, k)  y = MatMul(x, z) }"""
    )
    weights = {"w": np.ones((100, 100), np.int8), "shape": np.asarray([100, 100], np.int64)}
    left = cleaned(write(tmp_path / "m.onnx", text, **weights), {"x": random(2, 100)})
    assert left == {"Cast": 1, "ConstantOfShape": 1, "Add": 1, "MatMul": 1}


def test_quantized_weights_stay_quantized(tmp_path):
    text = (
        HEADER
        + """g (float[N,4] x) => (float[N,3] y) {
        w = DequantizeLinear(q, scale)  y = MatMul(x, w) }"""
    )
    weights = {"q": np.arange(12, dtype=np.int8).reshape(4, 3), "scale": np.asarray(0.1, np.float32)}
    path = write(tmp_path / "m.onnx", text, **weights)
    assert cleaned(path, {"x": random(2, 4)}) == {"DequantizeLinear": 1, "MatMul": 1}


def test_equal_tensors_are_stored_once(tmp_path):
    text = HEADER + "g (float[N,4] x) => (float[N,4] y) { h = MatMul(x, a) y = MatMul(h, b) }"
    path = write(tmp_path / "m.onnx", text, a=random(4, 4), b=random(4, 4))
    cleaned(path, {"x": random(2, 4)})
    model = clean(load(path))
    assert len(model.graph.initializers) == 1
    assert len(layers(model)) == 2


def test_bodies_are_cleaned_and_what_they_return_stays(tmp_path):
    text = (
        HEADER
        + """g (float[N,4] x, bool flag) => (float[N,4] y) {
        y = If(flag) <then_branch = t () => (float[N,4] u) { i = Identity(x) u = MatMul(i, w) },
                      else_branch = e () => (float[N,4] o) { o = Identity(x) }> }"""
    )
    path = write(tmp_path / "m.onnx", text, w=random(4, 4))
    for flag in (True, False):
        left = cleaned(path, {"x": random(2, 4), "flag": np.asarray(flag)})
        assert left == {"If": 1, "MatMul": 1, "Identity": 1}


def test_a_default_that_a_caller_may_override_is_not_folded(tmp_path):
    text = (
        HEADER
        + """g (float[N,4] x, float[4,4] w) => (float[N,4] y) {
        t = Transpose(w) h = MatMul(x, t) y = Add(h, b) }"""
    )
    path = write(tmp_path / "m.onnx", text, w=random(4, 4), b=random(4))
    other = {"x": random(2, 4), "w": random(4, 4, seed=9)}
    cleaned(path, {"x": random(2, 4)})
    cleaned(path, other)


def test_cleaning_is_repeatable(tmp_path):
    path = small_model(tmp_path / "m.onnx")
    first = save(clean(load(path)), tmp_path / "a.onnx")[0].read_bytes()
    assert first == save(clean(load(path)), tmp_path / "b.onnx")[0].read_bytes()
    again = clean(ir.load(tmp_path / "a.onnx"))
    assert len(again.graph) == len(load(tmp_path / "a.onnx").graph)


SPELT = {
    "swish, divided": ("a = Add(x, three) c = Clip(a, zero, six) p = Mul(x, c) y = Div(p, six)", 1),
    "swish, multiplied": ("a = Add(three, x) c = Clip(a, zero, six) p = Mul(c, x) y = Mul(sixth, p)", 1),
    "sigmoid": ("a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)", 0),
    "other numbers": ("a = Add(x, one) c = Clip(a, zero, two) p = Mul(x, c) y = Div(p, two)", 1),
    "read further": ("a = Add(x, three) c = Clip(a, zero, six) p = Mul(x, c) h = Div(p, six) y = Relu(h)", 1),
}
NUMBERS = {"zero": 0, "one": 1, "two": 2, "three": 3, "six": 6, "sixth": 1 / 6}
NUMBERS = {name: np.asarray(number, np.float32) for name, number in NUMBERS.items()}
EDGES = np.asarray([[-1e9, -9, -3.0001, -3, -1, -0.0, 0, 0.7, 2.9999, 3, 8, 1e9]], np.float32)


@pytest.mark.parametrize("case", SPELT)
def test_a_hard_sigmoid_that_is_spelt_out_becomes_one_node(tmp_path, case):
    body, products = SPELT[case]
    path = write(tmp_path / "m.onnx", f"{HEADER}g (float[1,12] x) => (float[1,12] y) {{ {body} }}", **NUMBERS)
    left = cleaned(path, {"x": EDGES}, rtol=1e-6)
    assert left["HardSigmoid"] == 1 and left["Mul"] == products
    assert not left.keys() & {"Add", "Clip", "Div"}


def test_bounds_of_clip_may_be_attributes(tmp_path):
    header = '<ir_version: 8, opset_import: ["" : 10]>\n'
    body = "a = Add(x, three) c = Clip<min=0.0, max=6.0>(a) p = Mul(x, c) y = Div(p, six)"
    path = write(tmp_path / "m.onnx", f"{header}g (float[1,12] x) => (float[1,12] y) {{ {body} }}", **NUMBERS)
    assert cleaned(path, {"x": EDGES}, rtol=1e-6) == {"HardSigmoid": 1, "Mul": 1}


NOT_SPELT = {
    "another divisor": "a = Add(x, three) c = Clip(a, zero, six) p = Mul(x, c) y = Div(p, two)",
    "from one on": "a = Add(x, three) c = Clip(a, one, six) p = Mul(x, c) y = Div(p, six)",
    "the divisor divided": "a = Add(x, three) c = Clip(a, zero, six) p = Mul(x, c) y = Div(six, p)",
    "read in between": "a = Add(x, three) c = Clip(a, zero, six) p = Mul(x, c) d = Div(p, six) y = Add(c, d)",
    "times another": "a = Add(x, three) c = Clip(a, zero, six) r = Relu(x) p = Mul(r, c) y = Div(p, six)",
}


@pytest.mark.parametrize("case", NOT_SPELT)
def test_what_only_looks_like_a_hard_sigmoid_stays(tmp_path, case):
    text = f"{HEADER}g (float[1,12] x) => (float[1,12] y) {{ {NOT_SPELT[case]} }}"
    left = cleaned(write(tmp_path / "m.onnx", text, **NUMBERS), {"x": np.clip(EDGES, 0.5, 9)})
    assert left["HardSigmoid"] == 0 and left["Clip"] == 1


def test_a_number_that_widens_its_tensor_stays(tmp_path):
    text = f"{HEADER}g (float[12] x) => (float[1,12] y) {{ a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six) }}"
    wide = {**NUMBERS, "three": np.full((1, 1), 3, np.float32)}
    left = cleaned(write(tmp_path / "m.onnx", text, **wide), {"x": EDGES[0]})
    assert left["HardSigmoid"] == 0
