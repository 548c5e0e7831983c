"""Every operator that changed is brought forward and must answer as before."""

import numpy as np
import pytest

from compression.errors import NotApplicable
from compression.graph import interface, load, save, upgrade_opset
from tests.compression.graph.running import answers, assert_same, random, write

HEADER = '<ir_version: 7, opset_import: ["" : {opset}]>\n'
IMAGE = "g (float[2,4,6,6] x) => (float[A,B,C,D] y)"

CASES = {
    "softmax over several axes": (11, IMAGE, "y = Softmax<axis=1>(x)"),
    "softmax by default": (12, IMAGE, "y = Softmax(x)"),
    "softmax over the last axis": (9, IMAGE, "y = Softmax<axis=3>(x)"),
    "log softmax in the middle": (11, IMAGE, "a = Relu(x) b = LogSoftmax<axis=2>(a) y = Neg(b)"),
    "slice": (9, IMAGE, "y = Slice<starts=[1,0], ends=[4,3], axes=[2,3]>(x)"),
    "slice without axes": (7, IMAGE, "y = Slice<starts=[0,1], ends=[1,3]>(x)"),
    "clip": (10, IMAGE, "y = Clip<min=-0.5, max=0.25>(x)"),
    "clip from below": (7, IMAGE, "y = Clip<min=0.1>(x)"),
    "pad": (10, IMAGE, "y = Pad<pads=[0,0,1,2,0,0,0,1], value=0.5>(x)"),
    "pad reflected": (7, IMAGE, 'y = Pad<mode="reflect", pads=[0,0,1,2,0,0,0,1]>(x)'),
    "upsample": (7, IMAGE, 'y = Upsample<mode="nearest", scales=[1.0,1.0,2.0,3.0]>(x)'),
    "upsample linear": (8, IMAGE, 'y = Upsample<mode="linear", scales=[1.0,1.0,2.0,2.0]>(x)'),
    "upsample by input": (
        9,
        IMAGE,
        's = Constant<value=float[4] {1.0,1.0,2.0,2.0}>() y = Upsample<mode="nearest">(x, s)',
    ),
    "resize": (
        10,
        IMAGE,
        's = Constant<value=float[4] {1.0,1.0,2.5,0.5}>() y = Resize<mode="nearest">(x, s)',
    ),
    "squeeze and unsqueeze": (11, IMAGE, "a = Unsqueeze<axes=[0,3]>(x) y = Squeeze<axes=[0,3]>(a)"),
    "reduce sum": (11, IMAGE, "y = ReduceSum<axes=[1,2], keepdims=1>(x)"),
    "reduce mean": (13, IMAGE, "y = ReduceMean<axes=[-1]>(x)"),
    "reduce everything": (11, "g (float[2,4] x) => (float[A,B] y)", "y = ReduceMax(x)"),
    "split": (11, IMAGE, "a, b = Split<axis=1, split=[1,3]>(x) y = Concat<axis=1>(b, a)"),
    "split equally": (13, IMAGE, "a, b = Split<axis=1>(x) y = Sub(b, a)"),
    "dropout": (10, IMAGE, "y = Dropout<ratio=0.3>(x)"),
    "batch norm": (8, IMAGE, "y = BatchNormalization(x, c, c, c, v)"),
    "top k": (
        9,
        "g (float[2,8] x) => (float[A,B] y)",
        "y, i = TopK<k=3, axis=1>(x)",
    ),
    "inside a body": (
        11,
        "g (float[2,4,6,6] x, bool flag) => (float[A,B,C,D] y)",
        """y = If(flag) <then_branch = t () => (float[E,F,G,H] u) { u = Softmax<axis=1>(x) },
                         else_branch = e () => (float[E,F,G,H] w) { w = ReduceSum<axes=[1]>(x) }>""",
    ),
    "grid sample": (
        16,
        "g (float[2,4,6,6] x, float[2,3,3,2] grid) => (float[A,B,C,D] y)",
        'y = GridSample<mode="bilinear">(x, grid)',
    ),
    "group norm": (
        18,
        "g (float[2,4,6,6] x) => (float[A,B,C,D] y)",
        "y = GroupNormalization<num_groups=2>(x, s2, b2)",
    ),
    "roi align": (
        10,
        "g (float[2,4,6,6] x, float[1,4] rois, int64[1] index) => (float[A,B,C,D] y)",
        "y = RoiAlign<output_height=2, output_width=2>(x, rois, index)",
    ),
}
FEEDS = {
    "x": random(2, 4, 6, 6),
    "flag": np.asarray(True),
    "grid": random(2, 3, 3, 2, seed=1).clip(-1, 1),
    "rois": np.asarray([[0.5, 0.5, 4.0, 5.0]], np.float32),
    "index": np.asarray([1], np.int64),
}
WEIGHTS = {
    "c": random(4, seed=2),
    "v": np.asarray([0.5, 1, 2, 3], np.float32),
    "s2": random(2, seed=3),
    "b2": random(2, seed=4),
}


def feeds_for(head: str) -> dict[str, np.ndarray]:
    feeds = {name: array for name, array in FEEDS.items() if f" {name}" in head.partition("=>")[0]}
    for shape in ((2, 4), (2, 8)):
        if f"[{shape[0]},{shape[1]}] x" in head:
            feeds["x"] = random(*shape)
    return feeds


@pytest.mark.parametrize("target", [13, 21])
@pytest.mark.parametrize("case", CASES)
def test_an_upgraded_operator_answers_as_before(tmp_path, case, target):
    opset, head, body = CASES[case]
    if opset >= target:
        pytest.skip("it is there already")
    used = {name: array for name, array in WEIGHTS.items() if f", {name}" in body}
    path = write(tmp_path / "old.onnx", HEADER.format(opset=opset) + head + "{" + body + "}", **used)
    expected = answers(path, feeds_for(head))
    model = load(path)
    before = interface(model)

    upgraded = upgrade_opset(model, target)

    assert upgraded.opset_imports[""] == target
    assert interface(upgraded) == before
    (new,) = save(upgraded, tmp_path / "new.onnx")
    assert_same(expected, answers(new, feeds_for(head)), rtol=1e-6)


def test_a_new_enough_model_stays_as_it_is(tmp_path):
    path = write(tmp_path / "m.onnx", HEADER.format(opset=17) + IMAGE + "{y = Relu(x)}")
    model = load(path)
    assert upgrade_opset(model, 13) is model
    assert model.opset_imports[""] == 17


def test_a_refusal_names_the_operator(tmp_path):
    head = "g (float[2,4,6,6] x) => (float[2,4,6,6] y)"
    body = "y = BatchNormalization<spatial=0>(x, c, c, c, v)"
    weights = dict.fromkeys("cv", random(4, 6, 6))
    path = write(tmp_path / "m.onnx", HEADER.format(opset=8) + head + "{" + body + "}", **weights)
    with pytest.raises(NotApplicable, match="BatchNormalization"):
        upgrade_opset(load(path), 13)
