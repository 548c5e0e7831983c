"""A Gelu that is spelt out becomes one node where the operator set has one."""

import numpy as np
import pytest

from compression.graph import load
from compression.graph.gelu import spells_gelu
from tests.compression.graph.running import cleaned, write

HEADER = '<ir_version: 9, opset_import: ["" : 20]>\n'
VALUES = np.asarray([[-1e4, -9, -3, -1, -0.3, -0.0, 0, 1e-3, 0.5, 1.7, 4, 1e4]], np.float32)
NUMBERS = {"one": 1, "two": 2, "half": 0.5, "root": np.sqrt(2), "inverse": np.sqrt(0.5)}
NUMBERS = {name: np.asarray(number, np.float32) for name, number in NUMBERS.items()}

SPELT = {
    "halved last": "d = Div(x, root) e = Erf(d) a = Add(e, one) p = Mul(x, a) y = Mul(p, half)",
    "halved last, by division": "d = Mul(x, inverse) e = Erf(d) a = Add(one, e) p = Mul(a, x) y = Div(p, two)",
    "halved first": "d = Mul(inverse, x) e = Erf(d) a = Add(e, one) h = Mul(x, half) y = Mul(h, a)",
    "halved between": "d = Div(x, root) e = Erf(d) a = Add(e, one) h = Mul(half, a) y = Mul(x, h)",
    "read further": "d = Div(x, root) e = Erf(d) a = Add(e, one) p = Mul(x, a) h = Mul(p, half) y = Relu(h)",
}
NOT_SPELT = {
    "another factor": "d = Div(x, root) e = Erf(d) a = Add(e, one) p = Mul(x, a) y = Mul(p, two)",
    "another width": "d = Div(x, two) e = Erf(d) a = Add(e, one) p = Mul(x, a) y = Mul(p, half)",
    "another sum": "d = Div(x, root) e = Erf(d) a = Add(e, two) p = Mul(x, a) y = Mul(p, half)",
    "times another": "d = Div(x, root) e = Erf(d) a = Add(e, one) r = Relu(x) p = Mul(r, a) y = Mul(p, half)",
    "times twice": "d = Div(x, root) e = Erf(d) a = Add(e, one) p = Mul(x, a) q = Mul(p, x) y = Mul(q, half)",
    "read in between": "d = Div(x, root) e = Erf(d) a = Add(e, one) p = Mul(x, a) h = Mul(p, half) y = Add(h, a)",
}


def model(tmp_path, body: str):
    return write(tmp_path / "m.onnx", f"{HEADER}g (float[1,12] x) => (float[1,12] y) {{ {body} }}", **NUMBERS)


@pytest.mark.parametrize("case", SPELT)
def test_a_gelu_that_is_spelt_out_becomes_one_node(tmp_path, case):
    left = cleaned(model(tmp_path, SPELT[case]), {"x": VALUES}, rtol=1e-6)
    assert left == {"Gelu": 1} | ({"Relu": 1} if "Relu" in SPELT[case] else {})


@pytest.mark.parametrize("case", NOT_SPELT)
def test_what_only_looks_like_a_gelu_stays(tmp_path, case):
    left = cleaned(model(tmp_path, NOT_SPELT[case]), {"x": VALUES})
    assert left["Gelu"] == 0 and left["Erf"] == 1


def test_an_older_operator_set_keeps_the_spelling(tmp_path):
    """Nor does its last factor go into the convolution behind, which would hide the spelling from runtimes."""
    header = '<ir_version: 8, opset_import: ["" : 17]>\n'
    body = f"{SPELT['halved last'].replace('y =', 'g =')} y = Conv(g, w)"
    text = f"{header}g (float[1,1,3,4] x) => (float[1,1,3,4] y) {{ {body} }}"
    path = write(tmp_path / "m.onnx", text, w=np.full((1, 1, 1, 1), 0.3, np.float32), **NUMBERS)
    assert spells_gelu(load(path))
    assert cleaned(path, {"x": VALUES.reshape(1, 1, 3, 4)}) == {
        "Div": 1,
        "Erf": 1,
        "Add": 1,
        "Mul": 2,
        "Conv": 1,
    }
