"""Operators one by one, in small graphs: what can be cut of them, and that the cut is sound."""

import numpy as np
import onnx
import pytest

from compression.graph import load
from compression.graph.channels import find_groups
from tests.compression.graph.channels.cutting import cut_and_prove, written
from tests.compression.graph.running import random

X = {"x": random(2, 6)}
IMAGE = {"x": random(2, 3, 8, 8)}
FRAMES = {"x": random(2, 5, 6)}
POSITIVE = np.random.default_rng(5).uniform(0.5, 1.5, 12).astype(np.float32)


def ints(*numbers: int) -> np.ndarray:
    return np.asarray(numbers, np.int64)


W = {"w": random(6, 12), "v": random(12, 4, seed=1)}
K = {"w": random(12, 3, 3, 3), "v": random(4, 12, 3, 3, seed=1)}
CASES: dict[str, tuple[str, dict, dict, dict]] = {
    # name: body, feeds, weights, expected size of each group
    "gemm, scaled and transposed": (
        "h = Gemm<transB=1, alpha=0.5>(x, w, b) t = Transpose(h) y = Gemm<transA=1>(t, v)",
        X,
        {"w": random(12, 6), "b": random(12), "v": random(12, 4)},
        {"h": 12},
    ),
    "matrix from the left": (
        "t = Transpose(x) h = MatMul(w, t) r = Relu(h) z = MatMul(v, r) y = Transpose(z)",
        X,
        {"w": random(12, 6), "v": random(4, 12)},
        {"h": 12},
    ),
    "vector and number constants": (
        "h = MatMul(x, w) a = Mul(h, s) b = Pow(a, two) c = Where(test, b, s) y = MatMul(c, v)",
        X,
        {**W, "s": random(12), "two": np.float32(2), "test": np.asarray([True, False] * 6)},
        {"h": 12},
    ),
    "weight behind a chain": (
        "t = Transpose(w) c = Cast<to=1>(t) s = Mul(c, scale) h = MatMul(x, s) y = MatMul(h, v)",
        X,
        {"w": random(12, 6), "scale": random(12), "v": W["v"]},
        {"h": 12},
    ),
    "the same weight twice": (
        "a = MatMul(x, w) b = MatMul(x, w) m = Mul(a, b) y = MatMul(m, v)",
        X,
        W,
        {"h": 12},
    ),
    "a chain through one square weight": (
        "a = MatMul(x, w) b = MatMul(a, q) r = Relu(b) c = MatMul(r, q) y = MatMul(c, v)",
        X,
        {**W, "q": random(12, 12)},
        {"h": 12},
    ),
    "a shared bias of zeros ties nothing": (
        "a = MatMul(x, w) r = Add(a, z) b = MatMul(r, q) s = Add(b, z) y = MatMul(s, v)",
        X,
        {**W, "q": random(12, 12), "z": np.full(12, 0.1, np.float32)},
        {"a": 12, "b": 12},
    ),
    "convolution in groups": (
        "h = Conv<pads=[1,1,1,1]>(x, w) g = Conv<group=3>(h, k, b) y = Conv(g, v)",
        IMAGE,
        {"w": K["w"], "k": random(6, 4, 3, 3), "b": random(6), "v": random(4, 6, 1, 1)},
        {"h": 3, "h2": 4, "g": 2},
    ),
    "depthwise with a multiplier": (
        "h = Conv(x, w) g = Conv<group=12>(h, k) y = Conv(g, v)",
        IMAGE,
        {"w": K["w"], "k": random(24, 1, 3, 3), "v": random(4, 24, 1, 1)},
        {"h": 12, "h2": 2},
    ),
    "transposed convolution": (
        "h = ConvTranspose<strides=[2,2]>(x, w, b) g = ConvTranspose(h, k) y = Conv(g, v)",
        IMAGE,
        {"w": random(3, 12, 2, 2), "b": random(12), "k": random(12, 8, 3, 3), "v": random(4, 8, 1, 1)},
        {"h": 12, "g": 8},
    ),
    "one dimension": (
        "h = Conv(x, w) m = MaxPool<kernel_shape=[2]>(h) y = Conv(m, v)",
        {"x": random(2, 3, 9)},
        {"w": random(12, 3, 3), "v": random(4, 12, 2)},
        {"h": 12},
    ),
    "normalizations by channel": (
        "h = Conv(x, w) n = BatchNormalization(h, s, b, m, u) i = InstanceNormalization(n, s, b) y = Conv(i, v)",
        IMAGE,
        {**K, "s": POSITIVE, "b": random(12), "m": random(12), "u": POSITIVE},
        {"h": 12},
    ),
    "normalization by group": (
        "h = Conv(x, w) n = GroupNormalization<num_groups=4>(h, s, b) r = Relu(n) y = Conv(r, v)",
        IMAGE,
        {**K, "s": POSITIVE, "b": random(12)},
        {"h": 4},
    ),
    "normalization over places": (
        "h = Conv(x, w) n = MeanVarianceNormalization<axes=[2,3]>(h) r = Relu(n) y = Conv(r, v)",
        IMAGE,
        K,
        {"h": 12},
    ),
    "pooling and resizing": (
        'h = Conv(x, w) a = AveragePool<kernel_shape=[2,2]>(h) u = Resize<mode="nearest">(a, , scales) '
        'p = Pad<mode="reflect">(u, pads) y = Conv(p, v)',
        IMAGE,
        {**K, "scales": np.asarray([1, 1, 2, 2], np.float32), "pads": ints(0, 0, 1, 1, 0, 0, 1, 1)},
        {"h": 12},
    ),
    "resizing to a shape": (
        "h = Conv(x, w) s = Shape(h) c = Slice(s, zero, two) z = Concat<axis=0>(c, side) "
        'u = Resize<mode="linear">(h, , , z) y = Conv(u, v)',
        IMAGE,
        {**K, "zero": ints(0), "two": ints(2), "side": ints(9, 9)},
        {"h": 12},
    ),
    "channels padded by zeros": (
        "h = Conv(x, w) p = Pad(h, pads) s = Conv(x, u) a = Add(p, s) y = Conv(a, v)",
        IMAGE,
        {
            "w": K["w"],
            "pads": ints(0, 2, 0, 0, 0, 2, 0, 0),
            "u": random(16, 3, 3, 3),
            "v": random(4, 16, 1, 1),
        },
        {"h": 12},
    ),
    "squeeze and excite": (
        "h = Conv(x, w) m = ReduceMean(h, axes) d = Conv(m, down) r = Relu(d) u = Conv(r, up) s = Sigmoid(u) "
        "e = Mul(h, s) y = Conv(e, v)",
        IMAGE,
        {**K, "axes": ints(2, 3), "down": random(6, 12, 1, 1), "up": random(12, 6, 1, 1)},
        {"h": 12, "d": 6},
    ),
    "concatenated and split elsewhere": (
        "a = Conv(x, w) b = Conv(x, u) c = Concat<axis=1>(a, b) p, q = Split<axis=1>(c, sizes) "
        "f = Conv(p, v) g = Conv(q, t) y = Add(f, g)",
        IMAGE,
        {
            "w": K["w"],
            "u": random(8, 3, 3, 3),
            "sizes": ints(6, 14),
            "v": random(4, 6, 1, 1),
            "t": random(4, 14, 1, 1),
        },
        {"a": 6, "a2": 6, "b": 8},
    ),
    "split in equal parts without sizes": (
        "h = MatMul(x, w) p, q = Split<axis=1, num_outputs=2>(h) g = Mul(p, q) y = MatMul(g, v)",
        X,
        {"w": random(6, 12), "v": random(6, 4)},
        {"h": 6},
    ),
    "pieces that meet again": (
        "h = MatMul(x, w) p, q = Split<axis=1>(h, sizes) r = Relu(p) c = Concat<axis=1>(q, r) y = MatMul(c, v)",
        X,
        {**W, "sizes": ints(4, 8)},
        {"h": 4, "h2": 8},
    ),
    "slices": (
        "h = MatMul(x, w) p = Slice(h, one, nine, axis) q = Slice(h, three, end, axis) r = Slice(h, minus, end, axis) "
        "f = MatMul(p, v) g = MatMul(q, u) k = MatMul(r, t) a = Add(f, g) y = Add(a, k)",
        X,
        {
            "w": W["w"],
            "one": ints(1),
            "nine": ints(9),
            "three": ints(3),
            "end": ints(2**62),
            "minus": ints(-4),
            "axis": ints(1),
            "v": random(8, 4),
            "u": random(9, 4),
            "t": random(4, 4),
        },
        {"a": 2, "b": 5, "c": 3},
    ),
    "every second": (
        "h = MatMul(x, w) e = Slice(h, zero, end, axis, two) o = Slice(h, one, end, axis, two) n = Neg(o) "
        "m = Mul(e, n) y = MatMul(m, v)",
        X,
        {
            "w": W["w"],
            "zero": ints(0),
            "one": ints(1),
            "end": ints(12),
            "axis": ints(1),
            "two": ints(2),
            "v": random(6, 4),
        },
        {"h": 6},
    ),
    "backwards": (
        "h = MatMul(x, w) b = Slice(h, last, end, axis, step) y = MatMul(b, v)",
        X,
        {**W, "last": ints(-1), "end": ints(-(2**62)), "axis": ints(1), "step": ints(-1)},
        {"h": 12},
    ),
    "gathered in another order": (
        "h = MatMul(x, w) g = Gather<axis=1>(h, order) y = MatMul(g, v)",
        X,
        {"w": W["w"], "order": ints(3, 1, 4, 0, 5, 9, 2, -1), "v": random(8, 4)},
        {"h": 8, "rest": 4},
    ),
    "shuffled": (
        "h = Conv(x, w) s = Reshape(h, five) t = Transpose<perm=[0,2,1,3,4]>(s) f = Reshape(t, four) y = Conv(f, v)",
        IMAGE,
        {**K, "five": ints(0, 3, 4, 6, 6), "four": ints(0, 12, 6, 6)},
        {"h": 3, "h2": 4},
    ),
    "flattened into neurons": (
        "h = Conv(x, w) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(h) f = Flatten(p) y = MatMul(f, v)",
        IMAGE,
        {"w": K["w"], "v": random(108, 4)},
        {"h": 12},
    ),
    "flattened with the channels last": (
        "h = Conv(x, w) t = Transpose<perm=[0,2,3,1]>(h) f = Reshape(t, shape) y = MatMul(f, v)",
        IMAGE,
        {"w": K["w"], "v": random(432, 4), "shape": ints(-1, 432)},
        {"h": 12},
    ),
    "reshaped by a computed shape": (
        "h = MatMul(x, w) s = Shape(h) n = Gather(s, zero) t = Gather(s, one) k = Gather(s, two) d = Div(k, heads) "
        "n1 = Unsqueeze(n, axis) t1 = Unsqueeze(t, axis) h1 = Unsqueeze(heads, axis) d1 = Unsqueeze(d, axis) "
        "z = Concat<axis=0>(n1, t1, h1, d1) r = Reshape(h, z) m = Mul(r, scale) "
        "c = Concat<axis=0>(n1, t1, minus) f = Reshape(m, c) y = MatMul(f, v)",
        FRAMES,
        {
            **W,
            "zero": np.int64(0),
            "one": np.int64(1),
            "two": np.int64(2),
            "heads": np.int64(3),
            "axis": ints(0),
            "minus": ints(-1),
            "scale": random(3, 1),
        },
        {"h": 3, "h2": 4},
    ),
    "a size that is used as a number": (
        "q = MatMul(x, w) k = MatMul(x, u) t = Transpose<perm=[0,2,1]>(k) s = MatMul(q, t) z = Shape(q) "
        "l = Slice(z, minus, end) f = Cast<to=1>(l) r = Sqrt(f) d = Div(s, r) p = Softmax(d) y = MatMul(p, x)",
        FRAMES,
        {"w": W["w"], "u": random(6, 12, seed=7), "minus": ints(-1), "end": ints(9)},
        {"q": 12},
    ),
    "expanded and tiled": (
        "h = MatMul(x, w) u = Unsqueeze(h, one) e = Expand(u, shape) t = Tile(e, repeats) f = Reshape(t, flat) "
        "y = MatMul(f, v)",
        X,
        {
            "w": W["w"],
            "one": ints(1),
            "shape": ints(1, 3, 12),
            "repeats": ints(1, 1, 2),
            "flat": ints(0, 72),
            "v": random(72, 4),
        },
        {"h": 12},
    ),
    "depth to space": (
        "h = Conv(x, w) d = DepthToSpace<blocksize=2>(h) k = Conv(x, t) "
        'c = DepthToSpace<blocksize=2, mode="CRD">(k) a = Add(d, c) s = SpaceToDepth<blocksize=3>(a) '
        "f = Conv(a, v) g = Conv(s, u) p = MaxPool<kernel_shape=[12,12]>(f) q = MaxPool<kernel_shape=[4,4]>(g) "
        "y = Add(p, q)",
        IMAGE,
        {"w": K["w"], "t": random(12, 3, 3, 3, seed=4), "v": random(4, 3, 1, 1), "u": random(4, 27, 1, 1)},
        {"h": 3},
    ),
    "einsum": (
        'h = Einsum<equation="nti,io->nto">(x, w) k = Einsum<equation="...i,io">(x, u) '
        'm = Einsum<equation="nto,nso->nts">(h, k) s = Softmax(m) y = Einsum<equation="nts,nsi->nti">(s, x)',
        FRAMES,
        {"w": W["w"], "u": random(6, 12, seed=3)},
        {"h": 12},
    ),
    "embedding": (
        "h = Gather(table, x) r = Relu(h) y = MatMul(r, v)",
        {"x": np.asarray([[1, 2, 3], [4, 0, 1]])},
        {"table": random(7, 12), "v": W["v"]},
        {"h": 12},
    ),
    "quantized and dequantized": (
        "w = DequantizeLinear<axis=1>(q, s, z) h = MatMul(x, w) a = QuantizeLinear(h, as, az) "
        "d = DequantizeLinear(a, as, az) "
        "e = QuantizeLinear<axis=1>(d, s, z) f = DequantizeLinear<axis=1>(e, s, z) y = MatMul(f, v)",
        X,
        {
            "q": np.random.default_rng(0).integers(-90, 90, (6, 12)).astype(np.int8),
            "s": POSITIVE / 50,
            "z": np.arange(12, dtype=np.int8),
            "as": np.float32(0.05),
            "az": np.int8(3),
            "v": W["v"],
        },
        {"h": 12},
    ),
    "gated": (
        "a = MatMul(x, w) b = MatMul(x, u) s = Sigmoid(b) g = Mul(a, s) y = MatMul(g, v)",
        X,
        {**W, "u": random(6, 12, seed=2)},
        {"a": 12},
    ),
    "maximum of several": (
        "a = MatMul(x, w) b = MatMul(x, u) m = Max(a, b, c) s = Sum(m, a) y = MatMul(s, v)",
        X,
        {**W, "u": random(6, 12, seed=2), "c": random(1, 12)},
        {"a": 12},
    ),
    "LSTM with all that it may have": (
        "t = Transpose<perm=[1,0,2]>(x) h, l, m = LSTM<hidden_size=7>(t, w, r, b, , s, c, p) q = Squeeze(h, one) "
        "z = Squeeze(l, zero) k = Squeeze(m, zero) e = Add(z, k) f = MatMul(q, v) g = MatMul(e, v) a = Add(f, g) "
        "y = Transpose<perm=[1,0,2]>(a)",
        FRAMES,
        {
            "w": random(1, 28, 6),
            "r": random(1, 28, 7),
            "b": random(1, 56),
            "s": random(1, 2, 7),
            "c": random(1, 2, 7),
            "p": random(1, 21),
            "v": random(7, 4),
            "zero": ints(0),
            "one": ints(1),
        },
        {"h": 7},
    ),
    "GRU in both directions": (
        "t = Transpose<perm=[1,0,2]>(x) "
        'h, l = GRU<hidden_size=7, direction="bidirectional", linear_before_reset=1>(t, w, r, b) '
        "s = Transpose<perm=[2,0,1,3]>(h) f = Reshape(s, shape) y = MatMul(f, v)",
        FRAMES,
        {
            "w": random(2, 21, 6),
            "r": random(2, 21, 7),
            "b": random(2, 42),
            "shape": ints(0, 0, -1),
            "v": random(14, 4),
        },
        {"h": 7},
    ),
    "attention": (
        "q = MatMul(x, w) k = MatMul(x, u) m = MatMul(x, t) a = Attention<q_num_heads=4, kv_num_heads=2>(q, k, m) "
        "y = MatMul(a, v)",
        FRAMES,
        {"w": random(6, 12), "u": random(6, 6, seed=1), "t": random(6, 10, seed=2), "v": random(20, 4)},
        {"heads": 2, "shared": 2, "keys": 3, "values": 5},
    ),
    "attention by heads, rotated": (
        "q = MatMul(x, w) k = MatMul(x, u) m = MatMul(x, t) "
        "r = RotaryEmbedding<num_heads=3>(q, cos, sin, places) s = RotaryEmbedding<num_heads=3>(k, cos, sin, places) "
        "a = Attention<q_num_heads=3, kv_num_heads=3>(r, s, m) y = MatMul(a, v)",
        {"x": random(2, 5, 6)},
        {
            "w": W["w"],
            "u": random(6, 12, seed=1),
            "t": random(6, 12, seed=2),
            "v": W["v"],
            "cos": random(9, 2),
            "sin": random(9, 2, seed=3),
            "places": np.tile(np.arange(5), (2, 1)),
        },
        {"heads": 3, "turned": 2, "values": 4},
    ),
    "multi-head attention of onnxruntime": (
        "q = MatMul(x, w) k = MatMul(x, u) m = MatMul(x, t) "
        "a = com.microsoft.MultiHeadAttention<num_heads=3>(q, k, m, b) y = MatMul(a, v)",
        FRAMES,
        {"w": W["w"], "u": random(6, 12, seed=1), "t": random(6, 12, seed=2), "b": random(36), "v": W["v"]},
        {"heads": 3, "keys": 4, "values": 4},
    ),
    "attention of onnxruntime that projects": (
        "a = com.microsoft.Attention<num_heads=3>(x, w, b) y = MatMul(a, v)",
        FRAMES,
        {"w": random(6, 36), "b": random(36), "v": W["v"]},
        {"heads": 3, "keys": 4, "values": 4},
    ),
    "group query attention of onnxruntime": (
        "q = MatMul(x, w) k = MatMul(x, u) m = MatMul(x, t) "
        "a, pk, pv = com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2>(q, k, m, , , lengths, total) "
        "y = MatMul(a, v)",
        FRAMES,
        {
            "w": random(6, 32),
            "u": random(6, 16, seed=1),
            "t": random(6, 16, seed=2),
            "v": random(32, 4),
            "lengths": np.asarray([4, 4], np.int32),
            "total": np.int32(5),
        },
        {"heads": 2, "shared": 2},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_can_be_cut_of(case, tmp_path):
    body, feeds, weights, expected = CASES[case]
    path = written(tmp_path, body, feeds, weights, opset=23 if "ttention" in body else 21)
    found = find_groups(load(path)).groups
    assert sorted(group.size for group in found) == sorted(expected.values()), found
    for seed, share in enumerate((0.5, 0.3, 0.99)):
        cut_and_prove(path, feeds, share, seed)


HEADS = (
    "h = MatMul(x, w) s = Shape(h) b = Slice(s, zero, two) c = Concat<axis=0>(b, heads) r = Reshape(h, c) "
    "t = Transpose<perm=[0,2,1,3]>(r) z = Shape(t) n = Slice(z, zero, two) l = Slice(z, two, four) "
    "d = Concat<axis=0>(n, l) f = Reshape(t, d) m = Relu(f) u = Transpose<perm=[0,2,1,3]>(m) "
    "g = Concat<axis=0>(b, minus) k = Reshape(u, g) y = MatMul(k, v)"
)
AXES = {"zero": ints(0), "two": ints(2), "four": ints(4), "heads": ints(3, 4), "minus": ints(-1)}


def test_a_shape_that_was_computed_is_stored(tmp_path):
    path = written(tmp_path, HEADS, {"x": random(2, 5, 6)}, {**W, **AXES})
    model = cut_and_prove(path, {"x": random(3, 5, 6)})
    kinds = [node.op_type for node in model.graph]
    assert not {"Shape", "Slice", "Concat", "Mul", "Add"} & set(kinds), kinds


def test_a_shape_with_two_unknown_sizes_stays_computed(tmp_path):
    model = onnx.load(written(tmp_path, HEADS, {"x": random(2, 5, 6)}, {**W, **AXES}))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "T"
    onnx.save(model, tmp_path / "model.onnx")
    cut_model = cut_and_prove(tmp_path / "model.onnx", {"x": random(3, 7, 6)})
    assert "Shape" in [node.op_type for node in cut_model.graph]
