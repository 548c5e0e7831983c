import numpy as np
import pytest

from compression.errors import NotApplicable
from compression.evaluation.task import find_task

LABELS = np.array([0, 2, 1, 2])


def outputs(**shapes):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("labels", "found", "kind", "output", "axis"),
    [
        (LABELS, outputs(logits=(4, 3)), "scores", "logits", 1),
        (LABELS[:, None], outputs(logits=(4, 3)), "scores", "logits", 1),
        (LABELS, outputs(embedding=(4, 64), logits=(4, 3)), "scores", "logits", 1),
        (LABELS, outputs(logits=(4, 1000), other=(4, 2)), "scores", "logits", 1),
        (np.eye(3, dtype=int)[LABELS], outputs(logits=(4, 3)), "scores", "logits", 1),
        (np.eye(3)[LABELS], outputs(logits=(4, 3)), "scores", "logits", 1),
        (LABELS.astype(np.float32), outputs(logits=(4, 3)), "scores", "logits", 1),
        (np.tile(LABELS[:, None], (1, 5)), outputs(tokens=(4, 5, 3)), "scores", "tokens", 2),
        (np.zeros((4, 8, 8), int), outputs(mask=(4, 2, 8, 8)), "scores", "mask", 1),
        (LABELS % 2, outputs(logit=(4, 1)), "binary", "logit", None),
        (LABELS % 2 == 1, outputs(logit=(4,)), "binary", "logit", None),
        (np.array([31, 45, 27, 60]), outputs(age=(4, 1)), "regression", "age", None),
        (np.array([0.5, 1.5, 2.0, 3.0]), outputs(price=(4, 1)), "regression", "price", None),
        (np.array([1.0, 0.0, 2.0, 3.0]), outputs(price=(4, 1)), "regression", "price", None),
        (np.zeros((4, 2)) + 0.5, outputs(other=(4, 3), box=(4, 2)), "regression", "box", None),
    ],
)
def test_rule(labels, found, kind, output, axis):
    task = find_task(labels, found)
    assert (task.kind, task.output, task.class_axis) == (kind, output, axis)


def test_class_numbers_serve_where_there_are_no_scores():
    task = find_task(LABELS, {"label": np.array([0, 1, 1, 2])})
    assert (task.kind, task.output) == ("classes", "label")


def test_scores_go_before_class_numbers():
    both = {"label": np.array([0, 1, 1, 2]), **outputs(probabilities=(4, 3))}
    assert find_task(LABELS, both).output == "probabilities"


def test_a_short_first_batch_tells_the_same_task():
    task = find_task(LABELS, outputs(logits=(2, 3)))
    assert len(task.labels) == 4 and task.kind == "scores"


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (np.array(["cat", "dog"]), outputs(logits=(2, 2))),
        (np.array([0, 7]), outputs(logits=(2, 3))),
        (np.array([0.5, np.nan]), outputs(y=(2, 1))),
        (np.array([-1, 1]), outputs(logits=(2, 2))),
        (np.zeros((2, 9)) + 0.5, outputs(logits=(2, 3))),
    ],
)
def test_labels_that_fit_nothing_are_refused_with_a_hint(labels, found):
    with pytest.raises(NotApplicable) as caught:
        find_task(labels, found)
    assert caught.value.hint


def test_class_numbers_beyond_the_outputs_are_told():
    with pytest.raises(NotApplicable, match=r"labels of shape \[N\] with class numbers -1 to 7 fit none"):
        find_task(np.array([-1, 0, 7]), {"logits": np.zeros((3, 2), np.float32)})
