"""How outputs are read: by labels, by what they hold, or as the user says."""

import numpy as np
import pytest

from compression.distillation.readings import Reading, read_again, read_outputs
from compression.errors import NotApplicable
from compression.evaluation.task import find_task

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)).astype(np.float32)
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("array", "reading"),
    [
        (LOGITS, Reading(kind="classes", axis=1)),
        (PROBABILITIES, Reading(kind="classes", axis=1, probabilities=True)),
        (np.stack([PROBABILITIES] * 3, axis=1), Reading(kind="classes", axis=2, probabilities=True)),
        (np.stack([PROBABILITIES] * 3, axis=2), Reading(kind="classes", axis=1, probabilities=True)),
        (RNG.normal(size=(6, 5, 7)).astype(np.float32), Reading(kind="values")),
        (RNG.normal(size=(6,)).astype(np.float32), Reading(kind="values")),
    ],
)
def test_without_labels(array: np.ndarray, reading: Reading) -> None:
    assert read_outputs({"y": array}, task=None, asked=None) == {"y": reading}


def test_labels_decide() -> None:
    steps = RNG.normal(size=(6, 5, 7)).astype(np.float32)
    task = find_task(RNG.integers(0, 7, (6, 5)), {"y": steps})
    assert read_outputs({"y": steps}, task=task, asked=None) == {"y": Reading(kind="classes", axis=2)}
    yes_or_no = RNG.integers(0, 2, (6, 4))
    yes_or_no[0] = (1, 1, 0, 0)
    task = find_task(yes_or_no, {"y": LOGITS})
    assert read_outputs({"y": LOGITS}, task=task, asked=None) == {"y": Reading(kind="decisions")}
    task = find_task(RNG.normal(size=(6, 4)), {"y": LOGITS})
    assert read_outputs({"y": LOGITS}, task=task, asked=None) == {"y": Reading(kind="values")}


def test_the_user_decides() -> None:
    read = read_outputs({"y": LOGITS}, task=None, asked="values")
    assert read == {"y": Reading(kind="values")}


def test_another_model_may_give_probabilities() -> None:
    read = read_outputs({"y": LOGITS}, task=None, asked=None)
    assert read_again(read, {"y": PROBABILITIES})["y"].probabilities


def test_integers_teach_nothing() -> None:
    with pytest.raises(NotApplicable, match="none of the outputs"):
        read_outputs({"y": np.arange(4)}, task=None, asked=None)
