"""Samples by number, as training asks for them."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from compression.data import Dataset, open_dataset
from compression.summary import TensorSummary

ROWS = [5, 0, 3]


def table(folder: Path, kind: str) -> tuple[Dataset, np.ndarray]:
    x = np.arange(24, dtype=np.float32).reshape(8, 3)
    path = folder / f"data.{kind}"
    if kind == "npz":
        np.savez(path, x=x)
    else:
        save_file({"x": x}, path)
    return open_dataset(path, folder / "work"), x


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_rows_come_in_the_order_asked_for(tmp_path: Path, kind: str) -> None:
    dataset, x = table(tmp_path, kind)
    free = TensorSummary(name="x", dtype="float32", shape=("N", 3))
    assert np.array_equal(dataset.take([free], ROWS)["x"], x[ROWS])
    assert dataset.batch_size([free], 4) == (4, False)


def test_a_fixed_batch_is_filled_with_the_last_sample(tmp_path: Path) -> None:
    dataset, x = table(tmp_path, "npz")
    fixed = TensorSummary(name="x", dtype="float64", shape=(4, 3))
    taken = dataset.take([fixed], ROWS)["x"]
    assert taken.dtype == np.float64
    assert np.array_equal(taken, x[[*ROWS, 3]])
    assert dataset.batch_size([fixed], 32) == (4, True)


def test_a_whole_input_has_no_axis_of_samples(tmp_path: Path) -> None:
    dataset, x = table(tmp_path, "npz")
    whole = TensorSummary(name="x", dtype="float32", shape=(3,))
    assert np.array_equal(dataset.take([whole], [6])["x"], x[6])
    assert dataset.batch_size([whole], 32) == (1, True)
