"""npz files: read whole and true, or refused before they cost anything."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from compression.data import Limits, inspect_dataset, open_dataset
from compression.errors import InvalidDataset
from compression.summary import TensorSummary


def save(path: Path, **arrays: np.ndarray) -> Path:
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path


def npy_header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy(array: np.ndarray, **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def test_summary_tells_what_was_saved(tmp_path: Path) -> None:
    path = save(tmp_path / "x", image=np.zeros((5, 3, 4, 4), np.float32), labels=np.arange(5))
    summary = inspect_dataset(path, tmp_path / "work")
    assert summary.format == "npz"
    assert (summary.samples, summary.size_bytes) == (5, path.stat().st_size)
    assert [(a.name, a.dtype, a.shape) for a in summary.arrays] == [
        ("image", "float32", (5, 3, 4, 4)),
        ("labels", "int64", (5,)),
    ]
    assert summary.labelled
    assert summary.warnings == ()


def test_large_arrays_are_mapped_and_fortran_order_reads_right(tmp_path: Path) -> None:
    values = np.asfortranarray(np.random.default_rng(0).normal(size=(700, 30, 40)).astype(np.float32))
    dataset = open_dataset(save(tmp_path / "x", x=values), tmp_path / "work")
    column = dataset.column("x")
    assert isinstance(column._array, np.memmap)
    batches = list(dataset.feeds([TensorSummary(name="x", dtype="float32", shape=("n", 30, 40))], 64))
    assert [len(batch["x"]) for batch in batches] == [64] * 10 + [60]
    assert all(batch["x"].flags.c_contiguous for batch in batches)
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in batches]), values)


def test_labels_are_read_whole(tmp_path: Path) -> None:
    dataset = open_dataset(
        save(tmp_path / "x", x=np.ones((3, 2)), labels=np.array([2, 0, 1])), tmp_path / "w"
    )
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [2, 0, 1]
    assert open_dataset(save(tmp_path / "y", x=np.ones((3, 2))), tmp_path / "w").labels is None


def test_an_array_of_whole_inputs_feeds_one_at_a_time_whatever_its_name(tmp_path: Path) -> None:
    arrays = {"images": np.ones((3, 1, 4, 8, 8), np.float32), "rate": np.array([8, 16, 24])}
    dataset = open_dataset(save(tmp_path / "x", **arrays), tmp_path / "work")
    inputs = [
        TensorSummary(name="images", dtype="float32", shape=(1, 4, None, None)),
        TensorSummary(name="rate", dtype="int64", shape=()),
    ]
    fed = list(dataset.feeds(inputs, 2))
    assert [feed["images"].shape for feed in fed] == [(1, 4, 8, 8)] * 3
    assert [feed["rate"].tolist() for feed in fed] == [8, 16, 24]


def test_nan_is_a_warning(tmp_path: Path) -> None:
    values = np.ones((4, 3), np.float32)
    values[1, 1], values[2, 0] = np.nan, np.inf
    summary = inspect_dataset(save(tmp_path / "x", x=values), tmp_path / "work")
    assert summary.warnings == ("'x' holds 2 values that are NaN or infinite",)


def test_bomb_is_refused_by_what_it_declares(tmp_path: Path) -> None:
    size = 2**30
    path = tmp_path / "bomb"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        member.write(npy_header((size // 4,)))
        for _ in range(size // 2**24):
            member.write(bytes(2**24))
    assert path.stat().st_size < 2**21
    with pytest.raises(InvalidDataset, match="bomb"):
        open_dataset(path, tmp_path / "work")
    assert not list((tmp_path / "work").rglob("*.npy"))


def test_header_that_asks_for_more_than_is_there(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x", x=npy_header((2**34,)))
    with pytest.raises(InvalidDataset, match="promises 68,719,476,736 bytes"):
        open_dataset(path, tmp_path / "work")


def test_too_much_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x", x=np.ones((100, 100)))
    with pytest.raises(InvalidDataset, match="more than the 1,000"):
        open_dataset(path, tmp_path / "work", Limits(total_bytes=1000))


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x", x=npy(np.array([{}, []], object), allow_pickle=True))
    with pytest.raises(InvalidDataset, match="Python objects"):
        open_dataset(path, tmp_path / "work")


@pytest.mark.parametrize("dtype", [[("a", "<f4"), ("b", "<i4")], "<M8[s]", "<c8"])
def test_types_no_input_takes(tmp_path: Path, dtype: object) -> None:
    with pytest.raises(InvalidDataset, match=r"structured|type"):
        open_dataset(zipped(tmp_path / "x", x=npy(np.zeros(3, dtype))), tmp_path / "work")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x09\x00", b"rubbish", npy_header((3,))[:40]])
def test_broken_members(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidDataset):
        open_dataset(zipped(tmp_path / "x", x=content), tmp_path / "work")


def test_damaged_bytes_fail_their_checksum(tmp_path: Path) -> None:
    path = save(tmp_path / "x", x=np.arange(4000.0))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(InvalidDataset, match="CRC"):
        open_dataset(path, tmp_path / "work")


def test_counts_must_agree_and_both_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"'x' has 4 samples, 'labels' has 3"):
        open_dataset(save(tmp_path / "x", x=np.zeros((4, 2)), labels=np.zeros(3)), tmp_path / "work")


@pytest.mark.parametrize("array", [np.zeros((0, 3)), np.float32(1.0)])
def test_no_samples(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(InvalidDataset, match=r"no samples|single number"):
        open_dataset(save(tmp_path / "x", x=np.asarray(array)), tmp_path / "work")


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"", "datasets are"),
        (b"\x80\x04K\x01.", "datasets are"),
        (b"hello, world, this is text", "datasets are"),
        (npy(np.zeros(3)), "numpy.savez"),
        (b"PK\x03\x04 not really a zip", "datasets are"),
    ],
)
def test_other_files_are_refused_with_a_hint(tmp_path: Path, content: bytes, hint: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InvalidDataset) as caught:
        open_dataset(tmp_path / "x", tmp_path / "work")
    assert hint in (caught.value.hint or "")


def test_two_datasets_share_a_workdir(tmp_path: Path) -> None:
    first = open_dataset(save(tmp_path / "a", x=np.full((2, 2), 1.0)), tmp_path / "work")
    second = open_dataset(save(tmp_path / "b", x=np.full((2, 2), 2.0)), tmp_path / "work")
    assert first.column("x").read(0, 1).tolist() == [[1.0, 1.0]]
    assert second.column("x").read(0, 1).tolist() == [[2.0, 2.0]]
