"""Batches: every sample once an epoch, in an order of the seed, and no more in memory than a batch."""

from pathlib import Path

import numpy as np
import pytest

from compression.errors import DataMissing
from compression.summary import TensorSummary
from compression.training.batches import Batches
from tests.compression.training.learning import dataset

FREE = TensorSummary(name="x", dtype="float32", shape=("N", 2))
FIXED = TensorSummary(name="x", dtype="float32", shape=(8, 2))


def batches(folder: Path, samples: int, tensor: TensorSummary = FREE, **options: object) -> Batches:
    x = np.arange(2 * samples, dtype=np.float32).reshape(samples, 2)
    data = dataset(folder, x=x, labels=np.arange(samples))
    return Batches(data, [tensor], **{"batch_size": 16, **options})  # type: ignore[arg-type]


def rows(found: Batches, epoch: int, start: int = 0) -> list[list[int]]:
    return [batch.rows.tolist() for batch in found.epoch(epoch, start)]


def test_an_epoch_has_every_sample_once_and_the_split_none(tmp_path: Path) -> None:
    found = batches(tmp_path, 103, validation=0.2)
    seen = [row for batch in rows(found, 1) for row in batch]
    aside = [row for batch in found.validation() for row in batch.rows.tolist()]
    assert len(aside) == 21
    assert sorted(seen + aside) == list(range(103))
    assert len(rows(found, 1)) == found.per_epoch == found.steps_per_epoch == 6
    assert {len(part) for part in rows(found, 1)} == {13, 14}


def test_order_is_the_seeds_and_the_epochs(tmp_path: Path) -> None:
    one, two, other = (batches(tmp_path / str(i), 64, seed=i // 2) for i in range(3))
    assert rows(one, 1) == rows(two, 1)
    assert rows(one, 1) != rows(one, 2)
    assert rows(one, 1) != rows(other, 1)
    assert rows(one, 3, start=2) == rows(one, 3)[2:]


def test_drawn_samples_are_the_seeds_and_not_the_first(tmp_path: Path) -> None:
    """Files are often sorted by class."""
    one, two, other = (batches(tmp_path / str(i), 100, seed=i // 2, validation=0.2) for i in range(3))
    drawn = one.drawn_rows(16)
    assert len(set(drawn.tolist())) == 16 and set(drawn.tolist()) <= set(one.training_rows.tolist())
    assert np.array_equal(drawn, two.drawn_rows(16)) and not np.array_equal(drawn, other.drawn_rows(16))
    assert drawn.max() > 50 and not np.array_equal(drawn, np.sort(drawn))
    assert sorted(one.drawn_rows(1000)) == one.training_rows.tolist()


def test_feeds_and_labels_belong_to_the_rows(tmp_path: Path) -> None:
    for batch in batches(tmp_path, 40).epoch(1):
        assert batch.labels is not None
        assert np.array_equal(batch.labels, batch.rows)
        assert np.array_equal(batch.feeds["x"][:, 0], 2.0 * batch.rows)


def test_a_fixed_axis_gives_whole_batches_and_adds_them_up(tmp_path: Path) -> None:
    found = batches(tmp_path, 30, FIXED, batch_size=16, accumulate=3)
    assert (found.size, found.per_epoch, found.accumulate) == (8, 3, 6)
    assert {len(part) for part in rows(found, 1)} == {8}
    (last,) = list(found.each(np.array([1, 2])))
    assert last.samples == 2
    assert last.feeds["x"].shape == (8, 2)


def test_fewer_samples_than_a_fixed_batch_are_filled_up(tmp_path: Path) -> None:
    found = batches(tmp_path, 5, FIXED)
    (batch,) = found.epoch(1)
    assert sorted(batch.rows.tolist()) == [0, 1, 2, 3, 4]
    assert batch.feeds["x"].shape == (8, 2)


def test_nothing_left_to_train_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="no training data is left"):
        batches(tmp_path, 1, validation=0.1)


def test_only_a_batch_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compression.data.columns import ArrayColumn

    taken: list[int] = []
    take = ArrayColumn.take
    monkeypatch.setattr(
        ArrayColumn,
        "take",
        lambda self, rows, target=None: taken.append(len(rows)) or take(self, rows, target),
    )
    monkeypatch.setattr(ArrayColumn, "read", lambda *_: pytest.fail("reads more than it was asked for"))
    found = iter(batches(tmp_path, 1000).epoch(1))
    next(found)
    assert taken == [16, 16]
