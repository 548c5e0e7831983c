"""Which stored tensors are learned, which are statistics, and which only say how to compute."""

from pathlib import Path

import numpy as np
import pytest

from compression.graph import load
from compression.graph.trainable.roles import Role, roles
from tests.compression.graph.running import random
from tests.compression.graph.trainable.building import loaded
from tests.compression.models import small_model

HEAD = '<ir_version: 8, opset_import: ["" : 18]> g (float[N,4] x) => (float[N,M] y) '


def role(tmp_path: Path, body: str, weight: np.ndarray) -> Role:
    return roles(loaded(tmp_path / "model.onnx", HEAD + "{" + body + "}", w=weight))["w"]


def test_layers_learn_and_statistics_are_kept_apart(tmp_path: Path) -> None:
    found = roles(load(small_model(tmp_path / "model.onnx")))
    assert {name for name, role in found.items() if role is Role.STATISTIC} == {"bn1.mean", "bn1.var"}
    assert {role for name, role in found.items() if not name.startswith("bn1")} == {Role.PARAMETER}
    assert found["bn1.gamma"] is found["bn1.beta"] is Role.PARAMETER


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("y = MatMul(x, w)", (4, 3)),
        ("t = Transpose(w) y = MatMul(x, t)", (3, 4)),
        ("s = Constant<value = int64[2] {4, 3}>() t = Reshape(w, s) y = MatMul(x, t)", (12,)),
        ("t = Cast<to=1>(w) i = Identity(t) y = Gemm(x, i)", (4, 3)),
        ("y = PRelu(x, w)", (4,)),
        ("y = Mul(x, w)", (4,)),
        ("b = Concat<axis=0>(w, x) y = Add(b, b)", (1, 4)),
        ('y = Einsum<equation = "ij,jk->ik">(x, w)', (4, 3)),
        ("i = Constant<value = int64[2] {0, 1}>() g = Gather(w, i) y = Mul(g, g)", (5, 4)),
    ],
)
def test_what_a_layer_reads_is_learned(tmp_path: Path, body: str, shape: tuple[int, ...]) -> None:
    assert role(tmp_path, body, random(*shape)) is Role.PARAMETER


@pytest.mark.parametrize(
    ("body", "weight"),
    [
        ("y = Mul(x, w)", np.array([0.3], np.float32)),
        ("y = Pow(x, w)", random(4)),
        ("c = Greater(x, w) y = Where(c, x, x)", random(4)),
        ("y = Add(x, w)", np.array([0, -np.inf, 0, 0], np.float32)),
        ("y = Add(x, w)", np.array([0, -1e4, 0, 0], np.float32)),
        ("y = Add(x, w)", np.array([0.5, 1.5, 2.5, 3.5], np.float32)),
        ("y = Max(x, w)", random(4)),
        ("c = Cast<to=7>(w) y = Gather<axis=1>(x, c)", np.array([0, 1], np.float32)),
    ],
)
def test_masks_grids_bounds_and_exponents_are_not(tmp_path: Path, body: str, weight: np.ndarray) -> None:
    assert role(tmp_path, body, weight) is Role.CONSTANT


@pytest.mark.parametrize("weight", [np.zeros(4, np.float32), np.ones(4, np.float32)])
def test_fresh_biases_and_scales_are_learned(tmp_path: Path, weight: np.ndarray) -> None:
    assert role(tmp_path, "y = Mul(x, w)", weight) is Role.PARAMETER
