"""The other formats: safetensors, parquet, zips of images, zips of one folder of .npy per array."""

import io
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import save_file

from compression.data import Limits, inspect_dataset, open_dataset
from compression.errors import InvalidDataset
from compression.summary import TensorSummary


def test_safetensors(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    half = values.astype(ml_dtypes.bfloat16)
    save_file({"x": values, "h": half, "labels": np.arange(6)}, tmp_path / "x")
    dataset = open_dataset(tmp_path / "x", tmp_path / "work")
    assert dataset.summary.format == "safetensors"
    assert {a.name: a.dtype for a in dataset.summary.arrays} == {
        "x": "float32",
        "h": "bfloat16",
        "labels": "int64",
    }
    np.testing.assert_array_equal(dataset.column("x").read(2, 5), values[2:5])
    np.testing.assert_array_equal(dataset.column("h").read(1, 3), half[1:3])
    inputs = [TensorSummary(name="h", dtype="float32", shape=(None, 4))]
    np.testing.assert_array_equal(next(dataset.feeds(inputs, 6))["h"], half.astype(np.float32))


def test_broken_safetensors(tmp_path: Path) -> None:
    save_file({"x": np.zeros((6, 4))}, tmp_path / "x")
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-8])
    with pytest.raises(InvalidDataset, match="safetensors"):
        open_dataset(tmp_path / "x", tmp_path / "work")


def test_parquet_columns_become_arrays(tmp_path: Path) -> None:
    rows = 9000
    values = np.arange(rows * 6, dtype=np.float32).reshape(rows, 2, 3)
    nested = pa.FixedSizeListArray.from_arrays(
        pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 3), 2
    )
    table = pa.table(
        {
            "x": nested,
            "y": pa.array([[float(i), 1.0] for i in range(rows)]),
            "z": np.arange(rows, dtype=np.int16),
            "comment": ["hm"] * rows,
            "labels": ["dog" if i % 3 else "cat" for i in range(rows)],
        }
    )
    pq.write_table(table, tmp_path / "x", row_group_size=1000)
    dataset = open_dataset(tmp_path / "x", tmp_path / "work")
    summary = dataset.summary
    assert {a.name: (a.dtype, a.shape) for a in summary.arrays} == {
        "x": ("float32", (rows, 2, 3)),
        "y": ("float64", (rows, 2)),
        "z": ("int16", (rows,)),
        "labels": ("int64", (rows,)),
    }
    assert summary.classes == ("cat", "dog")
    assert any("comment" in warning for warning in summary.warnings)
    np.testing.assert_array_equal(dataset.column("x").read(4000, 5000), values[4000:5000])
    assert dataset.labels is not None
    assert dataset.labels[:4].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[1.0], [1.0, 2.0]], "differ in length"),
        ([1.0, None], "missing"),
        ([[1.0, None], [1.0, 2.0]], "missing"),
    ],
)
def test_parquet_that_is_no_array(tmp_path: Path, column: list[object], message: str) -> None:
    pq.write_table(pa.table({"x": column}), tmp_path / "x")
    with pytest.raises(InvalidDataset, match=message):
        open_dataset(tmp_path / "x", tmp_path / "work")


def test_broken_or_empty_parquet(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"PAR1 and nothing sensible PAR1")
    with pytest.raises(InvalidDataset, match="parquet"):
        open_dataset(tmp_path / "x", tmp_path / "work")
    pq.write_table(pa.table({"x": pa.array([], pa.float32())}), tmp_path / "y")
    with pytest.raises(InvalidDataset, match="no rows"):
        open_dataset(tmp_path / "y", tmp_path / "work")


def picture(color: tuple[int, ...], size: tuple[int, int] = (4, 2), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, kind)
    return buffer.getvalue()


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_images_in_class_folders(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "x",
        {
            "set/dog/b.png": picture((255, 0, 0)),
            "set/cat/a.png": picture((0, 255, 0)),
            "set/cat/z.png": picture((0, 0, 51)),
            "__MACOSX/set/cat/._a.png": b"clutter",
            "set/readme.txt": b"text",
        },
    )
    dataset = open_dataset(path, tmp_path / "work")
    summary = dataset.summary
    assert (summary.format, summary.samples, summary.classes) == ("images", 3, ("cat", "dog"))
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0, 0, 1]
    (batch,) = dataset.feeds([TensorSummary(name="input", dtype="float32", shape=("n", 3, 2, 4))], 8)
    assert batch["input"].shape == (3, 3, 2, 4)
    np.testing.assert_allclose(batch["input"][:, :, 0, 0], [[0, 1, 0], [0, 0, 0.2], [1, 0, 0]], rtol=1e-6)


def test_images_follow_the_models_layout(tmp_path: Path) -> None:
    path = archive(tmp_path / "x", {"a.png": picture((10, 20, 30)), "b.png": picture((10, 20, 30), (8, 6))})
    dataset = open_dataset(path, tmp_path / "work")
    assert dataset.labels is None
    assert dataset.summary.arrays[0].ragged
    free = [TensorSummary(name="i", dtype="float32", shape=("n", 3, "h", "w"))]
    assert [batch["i"].shape for batch in dataset.feeds(free, 8)] == [(1, 3, 2, 4), (1, 3, 6, 8)]
    last = [TensorSummary(name="i", dtype="uint8", shape=("n", 5, 7, 3))]
    (batch,) = dataset.feeds(last, 8)
    assert batch["i"].shape == (2, 5, 7, 3)
    assert batch["i"][1, 2, 3].tolist() == [10, 20, 30]
    grey = [TensorSummary(name="i", dtype="uint8", shape=("n", 1, 5, 7))]
    assert next(dataset.feeds(grey, 8))["i"].shape == (2, 1, 5, 7)


def test_hostile_images(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"no readable image: it is of no known kind$"):
        open_dataset(archive(tmp_path / "a", {"a.png": b"no image"}), tmp_path / "work")
    huge = archive(tmp_path / "b", {"a.png": picture((0, 0, 0), (400, 400))})
    with pytest.raises(InvalidDataset, match="400x400"):
        open_dataset(huge, tmp_path / "work", Limits(image_pixels=100_000))
    cut = archive(tmp_path / "c", {"a.png": picture((1, 2, 3), (64, 64))[:-30]})
    dataset = open_dataset(cut, tmp_path / "work")
    with pytest.raises(InvalidDataset, match="no readable image"):
        list(dataset.feeds([TensorSummary(name="i", dtype="float32", shape=("n", 3, 8, 8))], 1))
    with pytest.raises(InvalidDataset, match="neither arrays nor images"):
        open_dataset(archive(tmp_path / "d", {"a.txt": b"x"}), tmp_path / "work")


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def test_folders_of_npy_hold_ragged_samples(tmp_path: Path) -> None:
    samples = [np.arange(n, dtype=np.float32) for n in (3, 5, 2)]
    members = {f"audio/{index:03}.npy": npy(sample) for index, sample in enumerate(samples)}
    path = archive(tmp_path / "x", {**members, "labels.npy": npy(np.array([1, 0, 1]))})
    dataset = open_dataset(path, tmp_path / "work")
    assert dataset.summary.format == "npy_folders"
    array = dataset.summary.array("audio")
    assert array is not None
    assert (array.shape, array.ragged) == ((3, 5), True)
    feeds = list(dataset.feeds([TensorSummary(name="audio", dtype="float32", shape=("n", "t"))], 4))
    assert [feed["audio"].tolist() for feed in feeds] == [[sample.tolist()] for sample in samples]
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [1, 0, 1]
    assert inspect_dataset(path, tmp_path / "work").warnings == ()
