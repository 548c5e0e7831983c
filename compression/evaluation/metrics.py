"""Task metrics of both models on the same labelled samples, with 95% intervals and the paired change of each.

    accuracy = right / all              top5 = label among the five highest scores / all
    precision_k = tp_k / predicted_k    recall_k = tp_k / labelled_k    f1_k = 2 tp_k / (predicted_k +
    labelled_k) mse = mean (prediction - label)^2   mae = mean |prediction - label|

Precision, recall and F1 are those of class 1 where there are two classes, else their plain mean over the
classes that the labels hold (macro). A share of nothing counts as 0. Intervals: Wilson's for accuracy and
top-5 with one label per sample, and Bonett and Price's for their change; bootstrap over whole samples for
everything else.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compression.errors import NotApplicable
from compression.evaluation.counts import Groups, grouped, macro
from compression.evaluation.intervals import bootstrap, paired_share_change, resampled, wilson
from compression.evaluation.predictions import Predictions
from compression.evaluation.task import IGNORED_LABEL, Task
from compression.measurements import Interval, MetricChange

CLASSIFICATION = ("accuracy", "top5", "precision", "recall", "f1")
REGRESSION = ("mse", "mae")
TOP = 5

Array = npt.NDArray[Any]
Pair = tuple[Interval, Interval, Interval]
"""Original, compressed, and the change between them."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Metrics by name."""

    original: dict[str, Interval] = field(default_factory=dict)
    compressed: dict[str, Interval] = field(default_factory=dict)
    changes: dict[str, MetricChange] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def fitting_metrics(task: Task) -> tuple[str, ...]:
    """The metrics that this task has; top-5 wants scores of six classes or more."""
    if not task.is_classification:
        return REGRESSION
    scored = task.kind == "scores" and task.classes > TOP
    return tuple(name for name in CLASSIFICATION if name != "top5" or scored)


def chosen_metrics(task: Task, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The wanted metrics, or all that fit.

    Raises:
        NotApplicable: a wanted metric does not fit the task.
    """
    fitting = fitting_metrics(task)
    wrong = [name for name in wanted or () if name not in fitting]
    if wrong:
        what = f"classification over {task.classes} classes" if task.classes else task.kind
        raise NotApplicable(
            f"{', '.join(wrong)} cannot be measured: labels and output {task.output!r} make this {what}",
            where="evaluation.metrics",
            hint=f"metrics that fit: {', '.join(fitting)}",
        )
    return tuple(wanted) if wanted else fitting


def score(
    task: Task, original: Predictions, compressed: Predictions, metrics: Sequence[str], *, seed: int = 0
) -> Scores:
    """Both models' metrics over the samples that were run."""
    if task.is_classification:
        pairs = dict(_classification(task, original, compressed, metrics, seed))
    else:
        pairs = dict(_regression(task, original, compressed, metrics, seed))
    missing = [name for name in metrics if name not in pairs]
    return Scores(
        original={name: pair[0] for name, pair in pairs.items()},
        compressed={name: pair[1] for name, pair in pairs.items()},
        changes={name: _change(pair[2]) for name, pair in pairs.items()},
        notes=(f"{', '.join(missing)}: predictions hold NaN or infinity, not measured.",) if missing else (),
    )


def _change(change: Interval) -> MetricChange:
    return MetricChange(change=change, significant=change.low > 0 or change.high < 0)


def _classification(
    task: Task, original: Predictions, compressed: Predictions, metrics: Sequence[str], seed: int
) -> Iterator[tuple[str, Pair]]:
    labels = task.labels[: original.samples]
    known = labels != IGNORED_LABEL
    before, after = original.classes(), compressed.classes()
    if "accuracy" in metrics:
        yield "accuracy", _share(known, before == labels, after == labels, seed)
    if "top5" in metrics:
        yield "top5", _share(known, original.ranks() < TOP, compressed.ranks() < TOP, seed)
    averaged = [name for name in metrics if name in {"precision", "recall", "f1"}]
    if averaged:
        binary = task.classes <= 2 and int(labels[known].max()) <= 1
        yield from _averaged(averaged, grouped(labels, before, after, known, binary=binary), seed)


def _share(known: Array, before: Array, after: Array, seed: int) -> Pair:
    if known.ndim > 1:
        return _share_of_positions(known, before, after, seed)
    before, after, total = before[known], after[known], int(known.sum())
    lost, gained = int((before & ~after).sum()), int((~before & after).sum())
    return (
        wilson(int(before.sum()), total),
        wilson(int(after.sum()), total),
        paired_share_change(lost, gained, total),
    )


def _share_of_positions(known: Array, before: Array, after: Array, seed: int) -> Pair:
    """Positions of one sample are not independent: whole samples are drawn."""
    axes = tuple(range(1, known.ndim))
    sums = np.stack([(hit & known).sum(axis=axes) for hit in (before, after)], axis=1).astype(np.float64)
    totals = known.sum(axis=axes).astype(np.float64)

    def shares(weights: Array) -> Array:
        return np.asarray((weights @ sums) / np.maximum(weights @ totals, 1)[:, None])

    return _pair(np.ones(len(known), np.int64), shares, seed)


def _averaged(names: Sequence[str], groups: Groups, seed: int) -> Iterator[tuple[str, Pair]]:
    for name in names:
        yield name, _pair(groups.counts, lambda weights, name=name: macro(name, groups, weights), seed)  # type: ignore[misc]


def _regression(
    task: Task, original: Predictions, compressed: Predictions, metrics: Sequence[str], seed: int
) -> Iterator[tuple[str, Pair]]:
    labels = task.labels[: original.samples]
    before, after = original.values(), compressed.values()
    axes = tuple(range(1, labels.ndim))
    for name in metrics:
        power = 2 if name == "mse" else 1
        errors = np.stack([(np.abs(p - labels) ** power).mean(axis=axes) for p in (before, after)], axis=1)
        if np.isfinite(errors).all():
            weigh = _weighted_mean(errors)
            yield name, _pair(np.ones(len(labels), np.int64), weigh, seed)


def _weighted_mean(values: Array) -> Callable[[Array], Array]:
    return lambda weights: np.divide(weights @ values, weights.sum(axis=1, keepdims=True))


def _pair(counts: Array, statistic: Callable[[Array], Array], seed: int) -> Pair:
    """`statistic` maps weights [resamples, groups] to [resamples, 2]: original and compressed."""
    before, after = (float(value) for value in statistic(counts[None].astype(np.float64))[0])
    draws = resampled(counts, statistic, seed)
    return (
        bootstrap(before, draws[:, 0]),
        bootstrap(after, draws[:, 1]),
        bootstrap(after - before, draws[:, 1] - draws[:, 0]),
    )
