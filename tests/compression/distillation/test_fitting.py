"""Other models beside the job's: which fit, and how they come to its interface."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from compression.distillation.fitting import adopt_interface, misfits
from compression.errors import NotApplicable
from compression.graph import interface, load, save, summarise
from tests.compression.models import images, small_model


def dense(path: Path, *, inputs: str = "x", outputs: tuple[str, ...] = ("y",), batch: object = "n") -> Path:
    """Flatten - Gemm, whose inner value bears the name of the small model's output."""
    weight = np.random.default_rng(3).normal(size=(10, 192)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", [inputs], ["logits" if "logits" not in outputs else "flat"]),
        helper.make_node(
            "Gemm", ["logits" if "logits" not in outputs else "flat", "w"], [outputs[0]], name="fc", transB=1
        ),
        *(helper.make_node("Relu", [outputs[0]], [name]) for name in outputs[1:]),
    ]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info(inputs, onnx.TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, 10]) for name in outputs],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def run(path: Path, name: str) -> np.ndarray:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {name: images(4)})[0]


@pytest.mark.parametrize("outputs", [("y",), ("logits",), ("other", "logits")])
def test_another_model_takes_the_names_and_axes(tmp_path: Path, outputs: tuple[str, ...]) -> None:
    ours = interface(load(small_model(tmp_path / "ours.onnx")))
    other = load(dense(tmp_path / "other.onnx", outputs=outputs))
    adopt_interface(other, ours, role="student")
    assert interface(other) == ours
    save(other, tmp_path / "adopted.onnx")
    session = ort.InferenceSession(tmp_path / "other.onnx", providers=["CPUExecutionProvider"])
    place = outputs.index("logits") if "logits" in outputs else 0
    expected = session.run(None, {"x": images(4)})[place]
    np.testing.assert_array_equal(run(tmp_path / "adopted.onnx", "image"), expected)


def test_a_student_that_fixes_an_open_axis_is_refused(tmp_path: Path) -> None:
    ours = load(small_model(tmp_path / "ours.onnx"))
    other = load(dense(tmp_path / "other.onnx", batch=1))
    summaries = [summarise(model, size_bytes=1) for model in (other, ours)]
    reasons = misfits(*summaries, role="student")
    assert reasons[0] == ("the student's input 'x' is [1, 3, 8, 8]; the model's 'image' is [batch, 3, 8, 8]")
    with pytest.raises(NotApplicable, match=r"student's input 'x' is \[1, 3, 8, 8\]"):
        adopt_interface(other, interface(ours), role="student")
    assert misfits(*summaries, role="teacher") == ()


def test_other_counts_are_refused(tmp_path: Path) -> None:
    ours = summarise(load(small_model(tmp_path / "ours.onnx")), size_bytes=1)
    other = summarise(load(dense(tmp_path / "other.onnx", outputs=("y", "z"))), size_bytes=1)
    (reason,) = misfits(other, ours, role="student")
    assert reason == "the student's outputs (y, z) do not answer the model's (logits)"
