"""Features of two models, which of them belong together, and projecting one to the other's channels."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from compression.distillation.features import Feature, find_features, find_value, measured_shapes
from compression.distillation.matching import match_features
from compression.distillation.projections import project
from compression.errors import NotApplicable
from compression.graph import load, save
from compression.method import StepContext
from tests.compression.distillation.networks import convolutional_network, digits, residual_network
from tests.compression.models import weights_of

MAPS = {"image": digits()[0][:5].reshape(5, 1, 8, 8)}
FLAT = {"image": digits()[0][:5]}


@pytest.fixture
def context(tmp_path: Path) -> StepContext:
    return StepContext(
        workdir=tmp_path, data={}, device="cpu", threads=1, seed=0, report=lambda fraction, message: None
    )


def test_features_are_taken_after_the_activation(tmp_path: Path, context: StepContext) -> None:
    found = find_features(load(convolutional_network(tmp_path / "m.onnx")), MAPS, 5, context)
    assert [(item.layer, item.value, item.shape, item.channel_axis) for item in found] == [
        ("conv1", "relu1:out", (16, 8, 8), 1),
        ("conv2", "relu2:out", (32, 4, 4), 1),
        ("hidden", "relu3:out", (64,), 1),
    ]
    assert [item.positions for item in found] == [(8, 8), (4, 4), ()]


def test_stages_are_matched_by_their_maps(tmp_path: Path, context: StepContext) -> None:
    models = [load(convolutional_network(tmp_path / f"{w}.onnx", width=w)) for w in (4, 16)]
    student, teacher = (find_features(model, MAPS, 5, context) for model in models)
    pairs = [(one.layer, other.layer) for one, other in match_features(student, teacher)]
    assert pairs == [("conv1", "conv1"), ("conv2", "conv2"), ("hidden", "hidden")]


def test_one_stage_is_matched_by_depth(tmp_path: Path, context: StepContext) -> None:
    models = [load(residual_network(tmp_path / f"{n}.onnx", blocks=n)) for n in (1, 4)]
    student, teacher = (find_features(model, FLAT, 5, context) for model in models)
    assert [item.layer for item in student] == ["stem", "b0.first", "b0.second"]
    pairs = [(one.layer, other.layer) for one, other in match_features(student, teacher)]
    assert pairs == [("stem", "b0.second"), ("b0.first", "b2.first"), ("b0.second", "b3.second")]


def test_no_common_rank_no_pair() -> None:
    flat = Feature(layer="a", value="a", shape=(8,), channel_axis=1)
    maps = Feature(layer="b", value="b", shape=(8, 4, 4), channel_axis=1)
    assert match_features([flat], [maps]) == ()


def test_values_are_found_by_name(tmp_path: Path, context: StepContext) -> None:
    model = load(convolutional_network(tmp_path / "m.onnx"))
    found = find_features(model, MAPS, 5, context)
    shapes = measured_shapes(model, ["pool1:out"], MAPS, context)
    assert find_value(model, "conv2", found, shapes, where="w").value == "relu2:out"
    assert find_value(model, "pool1:out", found, shapes, where="w").shape == (16, 4, 4)
    with pytest.raises(NotApplicable, match="'nothing' is no layer or value"):
        find_value(model, "nothing", found, shapes, where="w")


def test_projections_come_and_go(tmp_path: Path, context: StepContext) -> None:
    """The projected maps are the weight times the maps, computed by hand; without it the file is as before."""
    path = convolutional_network(tmp_path / "student.onnx", width=4)
    model, teacher = load(path), load(convolutional_network(tmp_path / "teacher.onnx"))
    save(model, tmp_path / "before.onnx")
    pairs = match_features(find_features(model, MAPS, 5, context), find_features(teacher, MAPS, 5, context))
    projections, names = project(model, pairs[1:], seed=3)
    save(model, tmp_path / "with.onnx")
    session = ort.InferenceSession(tmp_path / "with.onnx", providers=["CPUExecutionProvider"])
    maps, flat = session.run(names, MAPS)
    assert maps.shape == (5, 32, 4, 4)
    assert flat.shape == (5, 64)
    stored = weights_of(tmp_path / "with.onnx")[projections.weights[0]]
    student_maps = ort_value(model, "relu2:out", context)
    expected = np.einsum("oc,nchw->nohw", stored[:, :, 0, 0], student_maps)
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-5)
    projections.remove(model)
    save(model, tmp_path / "after.onnx")
    assert (tmp_path / "after.onnx").read_bytes() == (tmp_path / "before.onnx").read_bytes()


def ort_value(model: object, name: str, context: StepContext) -> np.ndarray:
    from compression import runtime

    session = runtime.open_session(model, device="cpu", threads=1, outputs=[name])  # type: ignore[arg-type]
    return np.asarray(runtime.run(session, MAPS)[name])
