"""Do arrays fit inputs: told from summaries, and then borne out by the batches."""

from pathlib import Path

import numpy as np
import pytest

from compression.data import fit_problems, open_dataset
from compression.errors import DataMismatch, InvalidDataset
from compression.summary import ArraySummary, DatasetSummary, TensorSummary


def tensor(
    name: str = "x", dtype: str = "float32", shape: tuple[object, ...] | None = ("n", 3)
) -> TensorSummary:
    return TensorSummary.model_validate({"name": name, "dtype": dtype, "shape": shape})


def dataset(format_: str = "npz", **arrays: tuple[str, tuple[int, ...]]) -> DatasetSummary:
    return DatasetSummary.model_validate(
        {
            "format": format_,
            "samples": 10,
            "size_bytes": 1,
            "arrays": [ArraySummary(name=n, dtype=d, shape=s) for n, (d, s) in arrays.items()],
        }
    )


@pytest.mark.parametrize(
    ("inputs", "data"),
    [
        ([tensor()], dataset(x=("float32", (10, 3)))),
        ([tensor()], dataset(other=("uint8", (10, 3)), labels=("int64", (10,)))),
        ([tensor(shape=None)], dataset(x=("float32", (10, 3, 7)))),
        ([tensor(shape=(1, 3))], dataset(x=("float64", (10, 3)))),
        ([tensor(shape=(1, 3))], dataset(x=("float32", (10, 1, 3)))),
        ([tensor(shape=()), tensor("y")], dataset(x=("int8", (10,)), y=("float32", (10, 3)))),
        ([tensor(dtype="int64")], dataset(x=("bool", (10, 3)))),
        ([tensor(dtype="unknown")], dataset(x=("float32", (10, 3)))),
        ([tensor(dtype="object", shape=("n",))], dataset(x=("str160", (10,)))),
        ([tensor(shape=("n", 3, "h", "w"))], dataset("images", images=("uint8", (10, 5, 5, 3)))),
    ],
)
def test_fits(inputs: list[TensorSummary], data: DatasetSummary) -> None:
    assert fit_problems(inputs, data) == ()


@pytest.mark.parametrize(
    ("inputs", "data", "words"),
    [
        ([tensor()], dataset(x=("float32", (10, 4))), ["axis 1 is 4", "takes 3"]),
        ([tensor()], dataset(x=("float32", (10,))), ["1 axes", "has 2"]),
        ([tensor(), tensor("y")], dataset(x=("float32", (10, 3))), ["'y'", "holds x"]),
        ([tensor()], dataset(a=("float32", (10, 3)), b=("float32", (10, 3))), ["'x'", "a, b"]),
        ([tensor(dtype="int64")], dataset(x=("float32", (10, 3))), ["is float32", "takes int64"]),
        ([tensor(dtype="bool")], dataset(x=("int64", (10, 3))), ["takes bool"]),
        ([tensor()], dataset(x=("str32", (10, 3))), ["str32"]),
        ([tensor(dtype="sequence(float32)", shape=None)], dataset(x=("float32", (10,))), ["takes sequence"]),
        (
            [tensor(shape=(2, 3)), tensor("y", shape=(4, 3))],
            dataset(x=("float32", (10, 3)), y=("float32", (10, 3))),
            ["batch sizes", "2, 4"],
        ),
        (
            [tensor(shape=("n", 64))],
            dataset("images", images=("uint8", (10, 5, 5, 3))),
            ["does not take images"],
        ),
    ],
)
def test_does_not_fit(inputs: list[TensorSummary], data: DatasetSummary, words: list[str]) -> None:
    (problem, *_) = fit_problems(inputs, data)
    assert problem.code == "data_mismatch"
    assert all(word in problem.message for word in words), problem.message


def test_channels_last_gets_a_hint() -> None:
    (problem,) = fit_problems([tensor(shape=(1, 3, 8, 9))], dataset(x=("float32", (10, 8, 9, 3))))
    assert "numpy.transpose(array, (0, 3, 1, 2))" in (problem.hint or "")


def saved(path: Path, **arrays: np.ndarray) -> Path:
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path


def test_fixed_batch_is_filled_up_with_the_last_sample(tmp_path: Path) -> None:
    data = open_dataset(saved(tmp_path / "x", x=np.arange(10).reshape(5, 2)), tmp_path / "work")
    batches = [feed["x"] for feed in data.feeds([tensor(shape=(2, 2))], 32)]
    assert [batch.tolist() for batch in batches] == [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [8, 9]]]
    assert batches[0].dtype == np.float32


def test_limit_and_start(tmp_path: Path) -> None:
    data = open_dataset(saved(tmp_path / "x", x=np.arange(10).reshape(10, 1)), tmp_path / "work")
    batches = data.feeds([tensor(shape=("n", 1))], 4, limit=5, start=3)
    assert [batch["x"][:, 0].tolist() for batch in batches] == [[3, 4, 5, 6], [7]]


def test_whole_samples_without_a_batch_axis(tmp_path: Path) -> None:
    state = np.arange(12, dtype=np.float32).reshape(3, 2, 1, 2)
    path = saved(tmp_path / "x", input=np.zeros((3, 5), np.float32), state=state, sr=np.array([8, 16, 8]))
    inputs = [
        tensor("input", shape=("n", "t")),
        tensor("state", shape=(2, "n", 2)),
        tensor("sr", "int64", ()),
    ]
    feeds = list(open_dataset(path, tmp_path / "work").feeds(inputs, 16))
    assert len(feeds) == 3
    assert feeds[1]["input"].shape == (1, 5)
    np.testing.assert_array_equal(feeds[1]["state"], state[1])
    assert feeds[1]["sr"].shape == ()
    assert feeds[1]["sr"] == 16


def test_feeds_refuse_what_does_not_fit(tmp_path: Path) -> None:
    data = open_dataset(saved(tmp_path / "x", x=np.zeros((5, 2))), tmp_path / "work")
    with pytest.raises(DataMismatch, match="axis 1 is 2"):
        next(data.feeds([tensor(shape=("n", 3))], 1))


def test_integers_out_of_range_are_told(tmp_path: Path) -> None:
    data = open_dataset(saved(tmp_path / "x", x=np.array([[1], [300]])), tmp_path / "work")
    with pytest.raises(InvalidDataset, match="outside uint8"):
        list(data.feeds([tensor(dtype="uint8", shape=("n", 1))], 8))


def test_text_reaches_the_model_as_objects(tmp_path: Path) -> None:
    data = open_dataset(saved(tmp_path / "x", x=np.array(["a", "bc"])), tmp_path / "work")
    (feed,) = data.feeds([tensor(dtype="object", shape=("n",))], 8)
    assert feed["x"].dtype == object
    assert feed["x"].tolist() == ["a", "bc"]
