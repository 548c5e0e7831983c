"""The teacher's answers: the same from the cache as computed anew, within the limit."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from compression.data import Dataset, open_dataset
from compression.distillation.teacher import Teacher
from compression.graph import load
from compression.method import StepContext
from tests.compression.distillation.networks import convolutional_network, digits

SAMPLES = 70
VALUES = ["relu1:out", "relu3:out"]
PIXELS = digits()[0][:SAMPLES].reshape(-1, 1, 8, 8)


@pytest.fixture
def context(tmp_path: Path) -> StepContext:
    return StepContext(
        workdir=tmp_path, data={}, device="cpu", threads=1, seed=0, report=lambda fraction, message: None
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    np.savez(tmp_path / "data.npz", image=PIXELS)
    return open_dataset(tmp_path / "data.npz", tmp_path / "opened")


def expected(path: Path, indices: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
        None, {"image": PIXELS[indices]}
    )[0]


@pytest.mark.parametrize(
    ("limit", "cached"),
    [
        (10**9, {"logits", *VALUES}),
        (SAMPLES * 4 * (10 + 64), {"logits", "relu3:out"}),
        (SAMPLES * 4 * 10, {"logits"}),
        (1, set()),
    ],
)
def test_answers_from_the_cache_and_anew(
    tmp_path: Path, context: StepContext, dataset: Dataset, limit: int, cached: set[str]
) -> None:
    path = convolutional_network(tmp_path / "m.onnx")
    teacher = Teacher(load(path), VALUES, context, limit_bytes=limit)
    heard: list[float] = []
    teacher.prepare(dataset, heard.append)
    assert teacher.cached == cached
    assert teacher.complete is (len(cached) == 3)
    assert sum(file.stat().st_size for file in tmp_path.glob("teacher_*")) <= limit + 200 * len(cached)
    indices = np.array([69, 3, 40])
    answers = teacher.answers(indices, {"image": PIXELS[indices]})
    assert {name: array.shape for name, array in answers.items()} == {
        "logits": (3, 10),
        "relu1:out": (3, 16, 8, 8),
        "relu3:out": (3, 64),
    }
    np.testing.assert_allclose(answers["logits"], expected(path, indices), rtol=1e-4, atol=1e-5)
    if cached:
        assert heard[-1] == 1.0


def test_a_fixed_batch_axis_is_cut_to_the_samples(
    tmp_path: Path, context: StepContext, dataset: Dataset
) -> None:
    import onnx

    path = convolutional_network(tmp_path / "m.onnx")
    proto = onnx.load(path)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 16
    onnx.save(proto, tmp_path / "fixed.onnx")
    teacher = Teacher(load(tmp_path / "fixed.onnx"), [], context)
    teacher.prepare(dataset, lambda fraction: None)
    indices = np.arange(SAMPLES)
    found = teacher.answers(indices, {})["logits"]
    np.testing.assert_allclose(found, expected(path, indices), rtol=1e-4, atol=1e-5)
