"""The teacher's answers: the same from the cache as computed anew, within the limit."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


NEEDED = SAMPLES * 4 * (10 + 16 * 64 + 64)
"""Bytes of logits and both values."""


class Counting:
    """A session that counts the rows it is run on."""

    def __init__(self, teacher: Teacher) -> None:
        self._session, self.rows = teacher._session, 0
        teacher._session = self  # type: ignore[assignment]

    def run(self, names: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.rows += len(feeds["image"])
        return self._session.run(names, feeds)

    def get_outputs(self) -> Any:
        return self._session.get_outputs()


@pytest.mark.parametrize("limit", [10**9, NEEDED, NEEDED - 1, 1])
def test_answers_from_the_cache_and_anew(
    tmp_path: Path, context: StepContext, dataset: Dataset, limit: int
) -> None:
    """Each sample is asked once where all answers fit; else in every batch, and a note says so."""
    path = convolutional_network(tmp_path / "m.onnx")
    teacher = Teacher(load(path), ["logits", *VALUES], context, limit_bytes=limit)
    counting, heard = Counting(teacher), []
    teacher.prepare(dataset, heard.append)
    fits = limit >= NEEDED
    assert counting.rows == (SAMPLES if fits else 32)
    assert teacher.cached == ({"logits", *VALUES} if fits else set())
    assert sum(file.stat().st_size for file in tmp_path.glob("teacher_*")) <= (limit + 600 if fits else 0)
    indices = np.array([69, 3, 40])
    answers = teacher.answers(indices, {"image": PIXELS[indices]})
    assert counting.rows == (SAMPLES if fits else 35)
    assert {name: array.shape for name, array in answers.items()} == {
        "logits": (3, 10),
        "relu1:out": (3, 16, 8, 8),
        "relu3:out": (3, 64),
    }
    np.testing.assert_allclose(answers["logits"], expected(path, indices), rtol=1e-4, atol=1e-5)
    if fits:
        assert heard[-1] == 1.0
        assert list(teacher.notes()) == []
    else:
        (note,) = teacher.notes()
        assert "outputs were computed anew for every batch: all take 307 kB" in note


def test_what_is_not_asked_for_is_not_kept(tmp_path: Path, context: StepContext, dataset: Dataset) -> None:
    teacher = Teacher(load(convolutional_network(tmp_path / "m.onnx")), ["relu3:out"], context)
    teacher.prepare(dataset, lambda fraction: None)
    assert teacher.answers(np.array([1]), {}).keys() == {"relu3:out"}


def test_gradients_are_kept_beside_the_outputs_where_they_fit(
    tmp_path: Path, context: StepContext, dataset: Dataset
) -> None:
    """Outputs come first: gradients alone are computed anew where the rest of the cache is too small."""
    calls: list[int] = []

    def gradients(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        calls.append(len(feeds["image"]))
        return {"gradient:image": 2 * feeds["image"]}

    path, indices = convolutional_network(tmp_path / "m.onnx"), np.array([3, 69])
    for limit, kept in ((10**9, {"logits", "gradient:image"}), (SAMPLES * 4 * 10, {"logits"})):
        teacher = Teacher(load(path), ["logits"], context, gradients=gradients, limit_bytes=limit)
        calls.clear()
        teacher.prepare(dataset, lambda fraction: None)
        assert teacher.cached == kept
        found = teacher.answers(indices, {"image": PIXELS[indices]})
        np.testing.assert_array_equal(found["gradient:image"], 2 * PIXELS[indices])
        assert sum(calls) == (SAMPLES if len(kept) == 2 else 32 + 2)
        assert [note.split(" were")[0] for note in teacher.notes()] == (
            [] if len(kept) == 2 else ["the teacher's gradients"]
        )


def test_a_full_disk_counts_as_a_small_cache(
    tmp_path: Path, context: StepContext, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=2 * SAMPLES * 4 * 10 - 2)
    monkeypatch.setattr("compression.distillation.teacher.shutil.disk_usage", lambda folder: free)
    teacher = Teacher(load(convolutional_network(tmp_path / "m.onnx")), ["logits"], context)
    teacher.prepare(dataset, lambda fraction: None)
    assert teacher.cached == set()
    assert "all take 2.80 kB" in next(teacher.notes())


def test_a_fixed_batch_axis_is_cut_to_the_samples(
    tmp_path: Path, context: StepContext, dataset: Dataset
) -> None:
    import onnx

    path = convolutional_network(tmp_path / "m.onnx")
    proto = onnx.load(path)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 16
    onnx.save(proto, tmp_path / "fixed.onnx")
    teacher = Teacher(load(tmp_path / "fixed.onnx"), ["logits"], context)
    teacher.prepare(dataset, lambda fraction: None)
    indices = np.arange(SAMPLES)
    found = teacher.answers(indices, {})["logits"]
    np.testing.assert_allclose(found, expected(path, indices), rtol=1e-4, atol=1e-5)
