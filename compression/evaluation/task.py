"""Which output of a model answers the labels, and how predictions are read from it.

Integer labels ask for classification, floats for regression; float labels that are all whole numbers and
match no output in shape are taken for class numbers too. Axes of size one at the end do not count. For
classification the first of these rules that fits decides, over the outputs in the model's order:

1. class scores with one class axis more than the labels: [N, C] for labels [N], [N, positions..., C] or [N,
C,
   positions...] for labels per position, where every label is below C. An output with exactly as many
   classes as the labels use goes first. One-hot labels [N, C] are taken for their class numbers.
2. class numbers: an integer output of the labels' own shape.
3. one score per label of 0 or 1: a float output of the labels' own shape. Scores that all lie within 0..1 are
   probabilities, others logits: the threshold is 0.5 or 0.

For regression, and for integer labels that fit none of the rules, it is the first float output of the
labels' shape.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from compression.errors import NotApplicable

IGNORED_LABEL = -100
"""Positions with this label count for nothing, by the convention of the training frameworks."""

Kind = Literal["scores", "classes", "binary", "regression"]
Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is predicted: `labels` in their plain form, the output that predicts them, and how to read it."""

    kind: Kind
    output: str
    labels: Array
    class_axis: int | None = None
    classes: int = 0

    @property
    def is_classification(self) -> bool:
        return self.kind != "regression"


def find_task(labels: Array, outputs: Mapping[str, Array]) -> Task:
    """The task that the labels [N, ...] and the outputs of one batch tell.

    Raises:
        NotApplicable: no output fits the labels; the hint lists the shapes.
    """
    if labels.dtype.kind not in "biuf" or not len(labels):
        raise NotApplicable(
            f"labels of type {labels.dtype} are no numbers", hint="give class numbers or floats"
        )
    plain = squeezed(labels)
    if plain.dtype.kind == "f" and not np.isfinite(plain).all():
        raise NotApplicable("the labels hold NaN or infinity", hint="remove these samples from the dataset")
    if np.array_equal(plain, np.round(plain)):
        task = _classification(plain, outputs)
        if task is not None:
            return task
    name = _same_shape(plain, outputs, kinds="f")
    if name is not None:
        return Task(kind="regression", output=name, labels=plain.astype(np.float64))
    shapes = ", ".join(f"{name} {_text(array.shape)}" for name, array in outputs.items())
    raise NotApplicable(
        f"labels of shape {_text(labels.shape)}{_told(plain)} fit none of the outputs ({shapes})",
        hint="class numbers [N] of 0 and more fit an output [N, classes] that has as many classes; "
        "floats fit an output of their own shape",
    )


def _text(shape: Sequence[int]) -> str:
    return f"[{', '.join(('N', *map(str, shape[1:])))}]"


def _told(labels: Array) -> str:
    """What whole-numbered labels hold, since it may be too high for the outputs, or negative."""
    if not np.array_equal(labels, np.round(labels)):
        return ""
    return f" with class numbers {int(labels.min())} to {int(labels.max())}"


def _classification(labels: Array, outputs: Mapping[str, Array]) -> Task | None:
    one_hot = _is_one_hot(labels, outputs)
    if labels.dtype.kind == "f" and not one_hot and _same_shape(labels, outputs, kinds="f") is not None:
        return None
    numbers = (labels.argmax(axis=1) if one_hot else labels).astype(np.int64)
    known = numbers[numbers != IGNORED_LABEL]
    if not known.size or known.min() < 0:
        return None
    return (
        _by_scores(numbers, known, outputs)
        or _by_class(numbers, outputs)
        or _by_binary(numbers, known, outputs)
    )


def _is_one_hot(labels: Array, outputs: Mapping[str, Array]) -> bool:
    return bool(
        labels.ndim == 2
        and labels.shape[1] >= 2
        and np.isin(labels, (0, 1)).all()
        and (labels.sum(axis=1) == 1).all()
        and any(array.shape[1:] == labels.shape[1:] for array in outputs.values())
    )


def _by_scores(numbers: Array, known: Array, outputs: Mapping[str, Array]) -> Task | None:
    used = int(known.max()) + 1
    found: list[Task] = []
    for name, array in outputs.items():
        axis = _class_axis(numbers, array)
        if axis is not None and array.dtype.kind == "f" and array.shape[axis] >= max(used, 2):
            classes = array.shape[axis]
            found.append(Task(kind="scores", output=name, labels=numbers, class_axis=axis, classes=classes))
    return next((task for task in found if task.classes == used), found[0] if found else None)


def _class_axis(labels: Array, output: Array) -> int | None:
    if output.ndim != labels.ndim + 1:
        return None
    positions = labels.shape[1:]
    if output.shape[1:-1] == positions:
        return output.ndim - 1
    return 1 if output.shape[2:] == positions else None


def _by_class(numbers: Array, outputs: Mapping[str, Array]) -> Task | None:
    name = _same_shape(numbers, outputs, kinds="iu")
    return None if name is None else Task(kind="classes", output=name, labels=numbers)


def _by_binary(numbers: Array, known: Array, outputs: Mapping[str, Array]) -> Task | None:
    name = _same_shape(numbers, outputs, kinds="f")
    return (
        None
        if name is None or known.max() > 1
        else Task(kind="binary", output=name, labels=numbers, classes=2)
    )


def _same_shape(labels: Array, outputs: Mapping[str, Array], *, kinds: str) -> str | None:
    for name, array in outputs.items():
        if array.dtype.kind in kinds and array.ndim and squeezed(array).shape[1:] == labels.shape[1:]:
            return name
    return None


def squeezed(array: Array) -> Array:
    """Labels or an output without the axes of size one at their end; the first axis, of samples, stays."""
    shape: Sequence[int] = array.shape
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return array.reshape(shape)
