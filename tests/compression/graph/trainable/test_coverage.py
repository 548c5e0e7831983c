"""Obstacles are told from the graph alone, without torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from compression.graph import summarise
from compression.graph.trainable import obstacles
from compression.graph.trainable.names import OPERATOR_NAMES, WITHOUT_GRADIENT
from compression.graph.trainable.tables import OPERATORS
from tests.compression.graph.trainable.building import (
    BRANCHES,
    BRANCHES_WEIGHTS,
    LOOP,
    MLP,
    MLP_WEIGHTS,
    loaded,
)

HEAD = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> g '


def test_the_names_are_those_of_the_tables() -> None:
    assert frozenset(OPERATORS) == OPERATOR_NAMES


def test_looking_at_a_model_does_not_load_torch() -> None:
    program = (
        "import sys, compression.graph.trainable; assert not {'torch', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_nothing_stands_in_the_way_of_what_trains(tmp_path: Path) -> None:
    assert obstacles(loaded(tmp_path / "mlp.onnx", MLP, **MLP_WEIGHTS)) == ()


def test_branches_and_loops_on_data_are_no_obstacle(tmp_path: Path) -> None:
    assert obstacles(loaded(tmp_path / "if.onnx", BRANCHES, **BRANCHES_WEIGHTS)) == ()
    assert obstacles(loaded(tmp_path / "loop.onnx", LOOP, w=(4, 4))) == ()


def test_unknown_operators_are_counted_with_their_first_node(tmp_path: Path) -> None:
    text = (
        HEAD
        + """(float[N,4] x) => (float[N,4] y) {
        [one] a = com.microsoft.Unheard(x)
        b = Add(a, w)
        [two] y = com.microsoft.Unheard(b)
    }"""
    )
    model = loaded(tmp_path / "unknown.onnx", text, w=(4,))
    (found,) = obstacles(model)
    assert (found.operator, found.count) == ("com.microsoft::Unheard", 2)
    assert found.node == next(node.name for node in model.graph)
    summary = summarise(model, size_bytes=0)
    assert summary.obstacles == (found,)
    assert summary.operators == {"Add": 1, "com.microsoft::Unheard": 2}


def test_a_model_that_answers_in_classes_has_no_gradient(tmp_path: Path) -> None:
    text = (
        HEAD
        + """(float[N,4] x) => (int64[N] y) {
        m = MatMul(x, w)
        r = Relu(m)
        y = ArgMax<axis=1, keepdims=0>(r)
    }"""
    )
    (found,) = obstacles(loaded(tmp_path / "classes.onnx", text, w=(4, 3)))
    assert (found.operator, found.count) == ("ArgMax", 1)
    assert "gradient" in found.reason


def test_a_second_output_with_scores_is_enough(tmp_path: Path) -> None:
    text = (
        HEAD
        + """(float[N,4] x) => (int64[N] y, float[N,3] m) {
        m = MatMul(x, w)
        y = ArgMax<axis=1, keepdims=0>(m)
    }"""
    )
    assert obstacles(loaded(tmp_path / "scores.onnx", text, w=(4, 3))) == ()


def test_a_model_without_float_weights_says_so(tmp_path: Path) -> None:
    text = HEAD + "(float[N,4] x) => (float[N,4] y) { y = Relu(x) }"
    (found,) = obstacles(loaded(tmp_path / "plain.onnx", text))
    assert "no float weights" in found.reason


def test_operators_without_gradient_are_known_operators() -> None:
    assert WITHOUT_GRADIENT <= OPERATOR_NAMES


def test_whole_numbers_on_the_way_block_the_gradient(tmp_path: Path) -> None:
    text = (
        HEAD
        + """(float[N,4] x) => (float[N,3] y) {
        m = MatMul(x, w)
        [down] i = Cast<to=7>(m)
        y = Cast<to=1>(i)
    }"""
    )
    (found,) = obstacles(loaded(tmp_path / "cast.onnx", text, w=np.ones((4, 3), np.float32)))
    assert (found.operator, found.node) == ("Cast", "down")
