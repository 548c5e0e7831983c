"""What scales and shifts channels goes into the layers around it, and only where nobody else sees a difference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compression.graph.running import cleaned, random, write

HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'
NORM = {
    "s": np.asarray([0.5, 1.5, -1, 2], np.float32),
    "b": random(4, seed=1),
    "m": random(4, seed=2),
    "v": np.asarray([0.1, 1, 2, 3], np.float32),
}
NUMBERS = {
    "half": np.asarray(0.5, np.float32),
    "third": np.asarray([[[-1 / 3]]], np.float32),
    "nought": np.asarray(0, np.float32),
    "rows": random(3, 1, 1, seed=8),
    "fours": random(1, 4, 1, 1, seed=9),
    "wide": random(1, 1, 1, 1, 1, seed=10),
    "places": random(5, 5, seed=11),
    "vast": np.asarray(3e38, np.float32),
}


FOLDED = {
    "conv without bias": ("float[1,3,5,5] x", "h = Conv(x, w)", (4, 3, 3, 3)),
    "grouped conv": ("float[1,6,5,5] x", "h = Conv<group=2>(x, w)", (4, 3, 3, 3)),
    "transposed": ("float[1,3,5,5] x", "h = ConvTranspose(x, w)", (3, 4, 3, 3)),
    "grouped transposed": ("float[1,6,5,5] x", "h = ConvTranspose<group=2>(x, w)", (6, 2, 3, 3)),
    "gemm": ("float[2,3] x", "h = Gemm<alpha=0.5, beta=2.0>(x, w, c)", (3, 4)),
    "gemm transposed": ("float[2,3] x", "h = Gemm<transB=1>(x, w)", (4, 3)),
}


@pytest.mark.parametrize("case", FOLDED)
def test_batch_norm_goes_into(tmp_path, case):
    inputs, body, shape = FOLDED[case]
    out = "float[A,B]" if "Gemm" in body else "float[A,B,C,D]"
    text = f"{HEADER}g ({inputs}) => ({out} y) {{ {body} y = BatchNormalization(h, s, b, m, v) }}"
    weights = {"w": random(*shape, seed=5), **NORM, **({"c": random(4, seed=6)} if ", c)" in body else {})}
    size = tuple(int(part) for part in inputs.partition("[")[2].partition("]")[0].split(","))
    left = cleaned(write(tmp_path / "m.onnx", text, **weights), {"x": random(*size)})
    assert left["BatchNormalization"] == 0


KEPT = {
    "the weight is shared": "h = Conv(x, w) k = Conv(x, w) "
    "n = BatchNormalization(h, s, b, m, v) y = Add(n, k)",
    "the output is read twice": "h = Conv(x, w) n = BatchNormalization(h, s, b, m, v) y = Add(n, h)",
    "the norm is not constant": "h = Conv(x, w) n = BatchNormalization(h, q, b, m, v) y = Relu(n)",
}


@pytest.mark.parametrize("case", KEPT)
def test_batch_norm_stays_where(tmp_path, case):
    text = f"{HEADER}g (float[1,3,5,5] x, float[4] q) => (float[A,B,C,D] y) {{ {KEPT[case]} }}"
    path = write(tmp_path / "m.onnx", text, w=random(4, 3, 3, 3), **NORM)
    assert cleaned(path, {"x": random(1, 3, 5, 5), "q": random(4)})["BatchNormalization"] == 1


def test_batch_norm_stays_where_its_input_is_an_output(tmp_path):
    text = (
        f"{HEADER}g (float[1,3,5,5] x) => (float[A,B,C,D] y, float[E,F,G,H] h)"
        "{ h = Conv(x, w) y = BatchNormalization(h, s, b, m, v) }"
    )
    path = write(tmp_path / "m.onnx", text, w=random(4, 3, 3, 3), **NORM)
    assert cleaned(path, {"x": random(1, 3, 5, 5)})["BatchNormalization"] == 1


BEHIND = {
    "a product": "h = Conv(x, w) y = Mul(h, half)",
    "a product the other way round": "h = Conv(x, w) y = Mul(third, h)",
    "a quotient": "h = Conv(x, w) y = Div(h, fours)",
    "a sum": "h = Conv(x, w) y = Add(fours, h)",
    "a difference": "h = Conv(x, w, c) y = Sub(h, half)",
    "a difference from a number": "h = Conv(x, w, c) y = Sub(half, h)",
    "all after one another": "h = Conv(x, w) a = Mul(h, half) p = Add(a, fours) d = BatchNormalization(p, s, b, m, v)"
    " y = Div(d, third)",
}
MORE = {"c": random(4, seed=6), **NUMBERS}


@pytest.mark.parametrize("case", BEHIND)
@pytest.mark.parametrize("layer", ["Conv", "Conv<pads=[1,1,1,1]>", "ConvTranspose"])
def test_arithmetic_goes_into_the_layer_before(tmp_path, case, layer):
    body = BEHIND[case].replace("Conv", layer)
    text = f"{HEADER}g (float[1,3,5,5] x) => (float[A,B,C,D] y) {{ {body} }}"
    shape = (3, 4, 3, 3) if layer == "ConvTranspose" else (4, 3, 3, 3)
    path = write(tmp_path / "m.onnx", text, w=random(*shape), **NORM, **MORE)
    assert cleaned(path, {"x": random(1, 3, 5, 5)}) == {layer.partition("<")[0]: 1}


def test_arithmetic_goes_into_a_product(tmp_path):
    text = f"{HEADER}g (float[2,3] x) => (float[2,4] y) {{ h = Gemm<beta=3.0>(x, w, c) a = Mul(h, c) y = Sub(c, a) }}"
    path = write(tmp_path / "m.onnx", text, w=random(3, 4), c=random(4, seed=1))
    assert cleaned(path, {"x": random(2, 3)}) == {"Gemm": 1}


BEFORE = {
    "a product": ("h = Mul(x, rows) y = Conv(h, w)", 3, {"Conv": 1}),
    "a product, padded": ("h = Mul(x, rows) y = Conv<pads=[1,1,1,1]>(h, w)", 3, {"Conv": 1}),
    "a product, transposed": ("h = Div(x, half) y = ConvTranspose(h, w)", 4, {"ConvTranspose": 1}),
    "a sum": ("h = Add(x, rows) y = Conv(h, w)", 3, {"Conv": 1}),
    "a sum, with a bias": ("h = Sub(half, x) y = Conv<strides=[2,2]>(h, w, c)", 3, {"Conv": 1}),
    "product and sum": ("h = Mul(x, rows) k = Add(h, third) y = Conv(k, w)", 3, {"Conv": 1}),
    "product and sum, in groups": (
        "h = Mul(x, fours) k = Add(h, fours) y = Conv<group=2>(k, w)",
        2,
        {"Conv": 1},
    ),
    "product and sum, depthwise and padded": (
        "h = Mul(x, fours) k = Add(h, half) y = Conv<group=4, pads=[1,1,1,1]>(k, w)",
        1,
        {"Add": 1, "Conv": 1},
    ),
    "product and difference, padded": (
        "h = Mul(half, x) k = Sub(h, rows) y = Conv<pads=[1,1,1,1]>(k, w)",
        3,
        {"Sub": 1, "Conv": 1},
    ),
    "two readers": ("h = Mul(x, rows) a = Conv(h, w) b = Conv(h, u) y = Sub(a, b)", 3, {"Conv": 2, "Sub": 1}),
}


@pytest.mark.parametrize("case", BEFORE)
def test_arithmetic_goes_into_the_convolution_behind(tmp_path, case):
    body, width, left = BEFORE[case]
    channels = 4 if "fours" in body or "Transpose" in body else 3
    text = f"{HEADER}g (float[1,{channels},5,5] x) => (float[A,B,C,D] y) {{ {body} }}"
    path = write(
        tmp_path / "m.onnx", text, w=random(4, width, 3, 3), u=random(4, width, 3, 3, seed=3), **MORE
    )
    assert cleaned(path, {"x": random(1, channels, 5, 5)}) == left


STAYS = {
    "padding stands beside the sum": "h = Add(x, rows) y = Conv<pads=[0,0,1,1]>(h, w)",
    "padding may stand beside the sum": 'h = Add(x, rows) y = Conv<auto_pad="SAME_UPPER">(h, w)',
    "the sum cannot be divided by the factor": "h = Mul(x, nought) k = Add(h, half) y = Conv<pads=[1,1,1,1]>(k, w)",
    "another reads it too": "h = Mul(x, rows) k = Conv<pads=[1,1,1,1]>(h, w) p = ReduceMean(h) y = Add(k, p)",
    "it is the weight": "h = Mul(x, rows) y = Conv(k0, h)",
    "the factor differs from place to place": "h = Conv<pads=[1,1,1,1]>(x, w) y = Mul(h, places)",
    "the factor widens the tensor": "h = Conv(x, w) k = Mul(h, wide) y = Squeeze(k, zero)",
    "the number divides by the tensor": "h = Conv(x, w) y = Div(half, h)",
    "the weight is shared": "h = Conv(x, w) k = Conv(x, w) a = Mul(h, half) y = Add(a, k)",
    "the weight would become infinite": "t = Sub(x, x) h = Conv(t, w) y = Mul(h, vast)",
}


@pytest.mark.parametrize("case", STAYS)
def test_arithmetic_stays_where(tmp_path, case):
    body = STAYS[case]
    text = f"{HEADER}g (float[1,3,5,5] x, float[1,3,9,9] k0) => (float[A,B,C,D] y) {{ {body} }}"
    path = write(tmp_path / "m.onnx", text, w=random(4, 3, 3, 3), zero=np.asarray([0], np.int64), **MORE)
    before = {kind: body.count(f" {kind}(") for kind in ("Mul", "Add", "Div")}
    left = cleaned(path, {"x": random(1, 3, 5, 5), "k0": random(1, 3, 9, 9)})
    assert {kind: left[kind] for kind in before} == before


def test_an_output_stays_what_it_was(tmp_path):
    text = (
        f"{HEADER}g (float[1,3,5,5] x) => (float[A,B,C,D] y, float[E,F,G,H] h, float[I,J,K,L] k)"
        "{ h = Conv(x, w) a = Mul(h, half) k = Mul(a, half) y = Conv(k, u) }"
    )
    path = write(tmp_path / "m.onnx", text, w=random(4, 3, 3, 3), u=random(4, 4, 1, 1), **MORE)
    assert cleaned(path, {"x": random(1, 3, 5, 5)})["Mul"] == 2


def test_half_precision_is_left_alone(tmp_path):
    text = f"{HEADER}g (float16[1,3,5,5] x) => (float16[A,B,C,D] y) {{ h = Conv(x, w) y = Mul(h, n) }}"
    path = write(
        tmp_path / "m.onnx", text, w=random(4, 3, 3, 3).astype(np.float16), n=np.asarray(0.3, np.float16)
    )
    assert cleaned(path, {"x": random(1, 3, 5, 5).astype(np.float16)})["Mul"] == 1


LAYERS = st.sampled_from(
    [
        ("Conv", (4, 4)),
        ("Conv<group=2, pads=[1,1,1,1]>", (4, 2)),
        ("Conv<group=4, dilations=[1,2]>", (4, 1)),
        ("Conv<group=4, pads=[0,1,2,0]>", (4, 1)),
        ('Conv<auto_pad="SAME_LOWER">', (4, 4)),
        ("ConvTranspose<pads=[1,0,1,0]>", (4, 4)),
        ("ConvTranspose<group=2, dilations=[2,2]>", (4, 2)),
    ]
)
STEPS = st.sampled_from(
    [
        *("Mul(#, a)", "Mul(n, #)", "Div(#, a)", "Add(#, a)", "Add(n, #)", "Sub(#, n)", "Sub(a, #)"),
        *("Relu(#)", "BatchNormalization(#, s, b, m, v)"),
    ]
)
PARTS = st.lists(st.one_of(STEPS, LAYERS), min_size=2, max_size=7)


@settings(max_examples=40)
@given(parts=PARTS, seed=st.integers(0, 2**16))
def test_whatever_stands_around_layers_the_answers_stay(tmp_path_factory, parts, seed):
    folder, lines, weights = tmp_path_factory.mktemp("chain"), [], {}
    for place, part in enumerate(parts):
        if isinstance(part, str):
            lines.append(f"x{place + 1} = {part.replace('#', f'x{place}')}")
        else:
            lines.append(f"x{place + 1} = {part[0]}(x{place}, w{place})")
            weights[f"w{place}"] = random(*part[1], 3, 3, seed=seed + place)
    weights |= {
        "a": np.asarray([[[0.5]], [[-2]], [[1.5]], [[0.7]]], np.float32),
        "n": np.asarray(-1.25, np.float32),
        **NORM,
    }
    body = " ".join(lines)
    text = f"{HEADER}g (float[1,4,32,32] x0) => (float[A,B,C,D] x{len(parts)}) {{ {body} }}"
    cleaned(write(folder / "m.onnx", text, **weights), {"x0": random(1, 4, 32, 32, seed=seed)}, rtol=1e-4)
