"""Models in ONNX's text form with random weights, loaded as uploads are."""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from compression.graph import load
from tests.compression.graph.running import random, write


def loaded(path: Path, text: str, **weights: np.ndarray | tuple[int, ...]) -> ir.Model:
    """A model whose initializers are arrays, or random ones of the given shapes."""
    arrays = {
        name: value if isinstance(value, np.ndarray) else random(*value, seed=index)
        for index, (name, value) in enumerate(weights.items())
    }
    return load(write(path, text, **arrays))


MLP = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,8] x) => (float[N,3] y) {
    h = Gemm<transB=1>(x, w1, b1)
    r = Tanh(h)
    m = MatMul(r, w2)
    y = Add(m, b2)
}"""
MLP_WEIGHTS = {"w1": (6, 8), "b1": (6,), "w2": (6, 3), "b2": (3,)}

BRANCHES = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) {
    s = ReduceSum<keepdims=0>(x)
    zero = Constant<value_float=0.0>()
    positive = Greater(s, zero)
    chosen = If(positive) <
        then_branch = yes () => (float[N,4] a) { a = MatMul(x, w1) },
        else_branch = no () => (float[N,4] b) { m = MatMul(x, w2) b = Neg(m) }
    >
    y = Add(chosen, x)
}"""
BRANCHES_WEIGHTS = {"w1": (4, 4), "w2": (4, 4)}

LOOP = """<ir_version: 8, opset_import: ["" : 17]> g (float[2,4] x, int64 n) => (float[2,4] last, float[T,2,4] all) {
    go = Constant<value = bool {1}>()
    last, all = Loop(n, go, x) <body = step (int64 i, bool c, float[2,4] h) => (bool d, float[2,4] k, float[2,4] out) {
        d = Identity(c)
        m = MatMul(h, w)
        k = Tanh(m)
        out = Identity(k)
    }>
}"""

SCAN = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2,4] start, float[5,2,4] x) => (float[2,4] last, float[5,2,4] all) {
    last, all = Scan<num_scan_inputs=1, body = step (float[2,4] h, float[2,4] now) => (float[2,4] k, float[2,4] out) {
        m = MatMul(h, w)
        k = Add(m, now)
        out = Relu(k)
    }>(start, x)
}"""
