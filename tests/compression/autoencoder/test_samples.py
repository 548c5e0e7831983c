"""Rows from arrays and activations, and what is held out."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from compression.autoencoder import samples as module
from compression.autoencoder.samples import activation_stream, array_stream, collect
from compression.data import Dataset, open_dataset
from compression.errors import NotApplicable
from compression.graph import load
from compression.method import StepContext
from tests.compression.models import images, small_model

COUNT = 100
IMAGES = images(COUNT)


@pytest.fixture
def context(tmp_path: Path) -> StepContext:
    return StepContext(
        workdir=tmp_path, data={}, device="cpu", threads=1, seed=0, report=lambda fraction, message: None
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    np.savez(tmp_path / "data.npz", image=IMAGES, labels=np.arange(COUNT))
    return open_dataset(tmp_path / "data.npz", tmp_path / "opened")


def found(stream: module.Stream, folder: Path, unit: str = "auto") -> module.Samples:
    return collect(stream, unit, 0.1, workdir=folder, seed=3, report=lambda fraction: None)


def test_an_array_gives_whole_samples(tmp_path: Path, dataset: Dataset) -> None:
    """Rows and held-out samples together are all samples, each once."""
    got = found(array_stream(dataset, "image"), tmp_path, unit="sample")
    assert got.rows.shape == (90, 3 * 8 * 8)
    assert got.held_out.shape == (10, 3, 8, 8)
    everything = np.concatenate([got.rows, got.held_out.reshape(10, -1)])
    order = np.lexsort(everything.T)
    np.testing.assert_array_equal(
        everything[order], IMAGES.reshape(COUNT, -1)[np.lexsort(IMAGES.reshape(COUNT, -1).T)]
    )


def test_activations_give_positions(tmp_path: Path, dataset: Dataset, context: StepContext) -> None:
    model = load(small_model(tmp_path / "m.onnx"))
    got = found(activation_stream(model, "r1", lambda shape: 1, dataset, context), tmp_path)
    assert (got.layout.features, got.layout.positions, got.drawn) == (8, 64, 64)
    assert got.rows.shape == (90 * 64, 8)
    import onnx

    proto = onnx.load(tmp_path / "m.onnx")
    proto.graph.output.append(onnx.helper.make_empty_tensor_value_info("r1"))
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    maps = session.run(["r1"], {"image": IMAGES})[0]
    sums = maps.sum(dtype=np.float64)
    np.testing.assert_allclose(
        got.rows.sum(dtype=np.float64) + got.held_out.sum(dtype=np.float64), sums, rtol=1e-5
    )
    first = next(sample for sample in maps if not (got.held_out == sample).all(axis=(1, 2, 3)).any())
    np.testing.assert_allclose(got.rows[:64], first.reshape(8, 64).T, rtol=1e-5, atol=1e-6)


def test_few_bytes_draw_few_positions(
    tmp_path: Path, dataset: Dataset, context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_BYTES", 90 * 8 * 4 * 5)
    model = load(small_model(tmp_path / "m.onnx"))
    got = found(activation_stream(model, "r1", lambda shape: 1, dataset, context), tmp_path)
    assert got.rows.shape == (90 * 5, 8)
    assert got.drawn == 5
    full = found_everything(tmp_path, dataset, context, monkeypatch)
    assert {row.tobytes() for row in got.rows} <= {row.tobytes() for row in full}


def found_everything(
    folder: Path, dataset: Dataset, context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> np.ndarray:
    monkeypatch.setattr(module, "ROWS_BYTES", 10**9)
    (folder / "full").mkdir()
    model = load(small_model(folder / "m.onnx"))
    return found(activation_stream(model, "r1", lambda shape: 1, dataset, context), folder / "full").rows


def test_what_cannot_be_encoded_is_refused(tmp_path: Path, dataset: Dataset, context: StepContext) -> None:
    with pytest.raises(NotApplicable, match="no array 'nothing'"):
        array_stream(dataset, "nothing")
    np.savez(tmp_path / "text.npz", words=np.array(["one", "two"]))
    words = open_dataset(tmp_path / "text.npz", tmp_path / "words")
    with pytest.raises(NotApplicable, match="'words' holds"):
        array_stream(words, "words")
