"""True positives, predicted and labelled counts per class, in groups that a bootstrap can draw from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse  # type: ignore[import-untyped]

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Per group and class, for the original (index 0) and the compressed model (1).

    With one label per sample a group is every sample with the same label and predictions; with labels per
    position it is one sample. `counts` [groups] holds how many samples a group stands for.
    """

    counts: npt.NDArray[np.int64]
    labelled: Any
    right: tuple[Any, Any]
    predicted: tuple[Any, Any]


def grouped(labels: Array, before: Array, after: Array, known: Array, *, binary: bool) -> Groups:
    """Count classes: only class 1 when `binary`, else every class that the labels hold."""
    classes = np.array([1]) if binary else np.unique(labels[known])
    if labels.ndim == 1:
        rows, counts = np.unique(
            np.stack([labels[known], before[known], after[known]]), axis=1, return_counts=True
        )
        owner, triples = np.arange(len(counts)), rows
    else:
        counts = np.ones(len(labels), np.int64)
        owner = np.nonzero(known)[0]
        triples = np.stack([labels[known], before[known], after[known]])
    y, a, b = triples
    size = (len(counts), len(classes))
    return Groups(
        counts=counts,
        labelled=_count(owner, y, classes, size),
        right=tuple(_count(owner[y == p], y[y == p], classes, size) for p in (a, b)),
        predicted=tuple(_count(owner, p, classes, size) for p in (a, b)),
    )


def _count(owner: Array, numbers: Array, classes: Array, size: tuple[int, int]) -> Any:
    """A sparse matrix [groups, classes]: how often each class occurs in each group."""
    column = np.searchsorted(classes, numbers).clip(max=len(classes) - 1)
    listed = classes[column] == numbers
    entries = np.ones(int(listed.sum()))
    return sparse.coo_array((entries, (owner[listed], column[listed])), shape=size).tocsr()


def macro(name: str, groups: Groups, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Precision, recall or F1 under group weights [resamples, groups]: [resamples, 2].

    Classes that no drawn sample is labelled with are left out of a resample's mean.
    """
    labelled = _weighted(weights, groups.labelled)
    present = labelled > 0
    columns = []
    for right, predicted in zip(groups.right, groups.predicted, strict=True):
        hits = _weighted(weights, right)
        guesses = _weighted(weights, predicted)
        over = {"precision": guesses, "recall": labelled, "f1": (guesses + labelled) / 2}[name]
        share = np.divide(hits, over, out=np.zeros_like(hits), where=over > 0)
        columns.append((share * present).sum(axis=1) / np.maximum(present.sum(axis=1), 1))
    return np.stack(columns, axis=1)


def _weighted(weights: npt.NDArray[np.float64], table: Any) -> npt.NDArray[np.float64]:
    return np.asarray((table.T @ weights.T).T)
