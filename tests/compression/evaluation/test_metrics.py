import numpy as np
import pytest
from sklearn import metrics as sk

from compression.errors import NotApplicable
from compression.evaluation.metrics import chosen_metrics, score
from compression.evaluation.predictions import Predictions
from compression.evaluation.task import IGNORED_LABEL, find_task


def scored(labels, before, after, wanted=None, batch=64):
    task = find_task(labels, {"y": before[:batch]})
    pair = Predictions(task), Predictions(task)
    for predictions, output in zip(pair, (before, after), strict=True):
        for start in range(0, len(output), batch):
            predictions.add(output[start : start + batch])
    return score(task, *pair, chosen_metrics(task, wanted))


@pytest.fixture(scope="module")
def many():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 800)
    before = rng.normal(size=(800, 10)) + 2.0 * np.eye(10)[labels]
    return labels, before, before + rng.normal(size=before.shape)


def test_classification_metrics_are_sklearns(many):
    labels, before, after = many
    found = scored(labels, before, after)
    for scores, side in ((before, found.original), (after, found.compressed)):
        guess = scores.argmax(1)
        assert side["accuracy"].value == pytest.approx(sk.accuracy_score(labels, guess))
        assert side["top5"].value == pytest.approx(sk.top_k_accuracy_score(labels, scores, k=5))
        assert side["precision"].value == pytest.approx(sk.precision_score(labels, guess, average="macro"))
        assert side["recall"].value == pytest.approx(sk.recall_score(labels, guess, average="macro"))
        assert side["f1"].value == pytest.approx(sk.f1_score(labels, guess, average="macro"))
    for name, change in found.changes.items():
        assert change.change.value == pytest.approx(found.compressed[name].value - found.original[name].value)
        assert change.change.low <= change.change.value <= change.change.high
        assert found.original[name].low <= found.original[name].value <= found.original[name].high


def test_a_clear_loss_is_significant_and_a_small_one_is_not(many):
    labels, before, after = many
    assert all(change.significant for change in scored(labels, before, after).changes.values())
    small = before.copy()
    small[0] = -small[0]
    assert not any(change.significant for change in scored(labels, before, small).changes.values())


def test_classes_that_no_label_holds_do_not_enter_the_mean():
    """The compressed model guesses class 2, which no sample has."""
    labels = np.array([0, 0, 1, 1])
    before = np.eye(3)[[0, 0, 1, 1]]
    after = np.eye(3)[[0, 2, 1, 1]]
    found = scored(labels, before, after)
    assert found.original["f1"].value == 1
    expected = sk.f1_score(labels, after.argmax(1), labels=[0, 1], average="macro")
    assert found.compressed["f1"].value == pytest.approx(expected)


def test_two_classes_count_class_one():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 200)
    logits = rng.normal(size=200) + 2.0 * labels - 1
    found = scored(labels, logits[:, None], logits[:, None] * 0.5)
    guess = (logits > 0).astype(int)
    assert found.original["precision"].value == pytest.approx(sk.precision_score(labels, guess))
    assert found.original["recall"].value == pytest.approx(sk.recall_score(labels, guess))
    assert found.original["f1"].value == pytest.approx(sk.f1_score(labels, guess))
    assert found.changes["accuracy"].change.value == 0


def test_single_probabilities_are_cut_at_a_half():
    labels = np.array([0, 1, 1, 0])
    found = scored(labels, np.array([0.1, 0.9, 0.4, 0.2]), np.array([0.1, 0.9, 0.6, 0.2]))
    assert found.original["accuracy"].value == 0.75
    assert found.compressed["accuracy"].value == 1


def test_positions_are_judged_one_by_one_and_ignored_labels_left_out():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, (40, 6))
    labels[:, 4:] = IGNORED_LABEL
    before = rng.normal(size=(40, 6, 3)) + 2 * np.eye(3)[labels.clip(0)]
    found = scored(labels, before, before[..., ::-1], batch=16)
    truth, guess = labels[:, :4].ravel(), before.argmax(-1)[:, :4].ravel()
    assert found.original["accuracy"].value == pytest.approx(sk.accuracy_score(truth, guess))
    assert found.original["f1"].value == pytest.approx(sk.f1_score(truth, guess, average="macro"))
    assert found.changes["accuracy"].significant
    segmented = scored(labels, np.moveaxis(before, -1, 1), np.moveaxis(before, -1, 1), batch=16)
    assert segmented.original == found.original


def test_regression_metrics_are_sklearns():
    rng = np.random.default_rng(3)
    labels = rng.normal(size=(300, 2))
    before = labels + rng.normal(size=labels.shape) * 0.1
    after = labels + rng.normal(size=labels.shape) * 0.3
    found = scored(labels, before, after)
    assert found.original["mse"].value == pytest.approx(sk.mean_squared_error(labels, before))
    assert found.compressed["mae"].value == pytest.approx(sk.mean_absolute_error(labels, after))
    assert found.changes["mse"].significant and found.changes["mse"].change.low > 0
    per_sample = ((before - labels) ** 2).mean(1)
    width = 2 * 1.96 * per_sample.std() / 300**0.5
    assert found.original["mse"].high - found.original["mse"].low == pytest.approx(width, rel=0.15)


def test_filling_rows_of_the_last_batch_are_cut_off():
    labels = np.array([0, 1, 1])
    output = np.eye(2)[[0, 1, 1, 1]]
    found = scored(labels, output, output, batch=2)
    assert found.original["accuracy"].value == 1


def test_predictions_that_are_no_numbers_are_never_right():
    labels = np.arange(8)
    before = np.eye(8)
    found = scored(labels, before, np.full((8, 8), np.nan))
    assert found.compressed["top5"].value == 0
    assert found.compressed["accuracy"].value == pytest.approx(1 / 8)
    regression = scored(labels + 0.5, labels + 0.4, np.full(8, np.nan))
    assert regression.compressed == {} and "not measured" in regression.notes[0]


def test_equal_scores_are_no_top_five_hit_for_late_classes():
    labels = np.arange(10)
    found = scored(labels, np.eye(10), np.zeros((10, 10)))
    assert found.compressed["top5"].value == 0.5


def test_a_metric_that_does_not_fit_is_refused_with_those_that_do(many):
    labels, before, after = many
    with pytest.raises(NotApplicable, match="mse") as caught:
        scored(labels, before, after, wanted=("accuracy", "mse"))
    assert "accuracy, top5" in caught.value.hint
    assert set(scored(labels, before, after, wanted=("f1",)).original) == {"f1"}
