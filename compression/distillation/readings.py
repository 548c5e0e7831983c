"""How a model's outputs are read before student and teacher are compared: classes, decisions, or values.

| kind | what it is | soft loss |
|---|---|---|
| classes | scores of classes along one axis | softmax with temperature |
| decisions | one yes or no per entry | sigmoid with temperature |
| values | numbers | mean squared difference |

Labels decide where there are any (see `compression.evaluation.task`). Other float outputs whose entries are never
negative and sum to one along an axis are classes, as are those of shape [N, C] with C >= 2; the rest are values.
Each model gives probabilities or logits of its own: logarithms bring both to logits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from compression.errors import NotApplicable
from compression.evaluation.task import Task

Kind = Literal["classes", "decisions", "values"]
Array = npt.NDArray[Any]
OF_TASK: Mapping[str, Kind] = {"scores": "classes", "binary": "decisions", "regression": "values"}
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How one output is read; `axis` counts classes."""

    kind: Kind
    axis: int = 1
    probabilities: bool = False


def read_outputs(
    outputs: Mapping[str, Array], *, task: Task | None, asked: Kind | None
) -> dict[str, Reading]:
    """How to read each float output that has an entry per sample.

    Args:
        outputs: of one model on a few samples.
        task: what the labels tell, where there are some.
        asked: what the user says of all outputs, against the rules.

    Raises:
        NotApplicable: there is no such output.
    """
    found = {
        name: _read(array, task if task is not None and task.output == name else None, asked)
        for name, array in outputs.items()
        if array.dtype.kind == "f" and array.ndim
    }
    if not found:
        raise NotApplicable(
            f"none of the outputs ({', '.join(outputs)}) holds floats, from which a student could learn"
        )
    return found


def read_as(array: Array, kind: Kind, axis: int) -> Reading:
    """An output whose kind is known."""
    return Reading(kind=kind, axis=axis, probabilities=_holds_probabilities(array, kind, axis))


def read_again(readings: Mapping[str, Reading], outputs: Mapping[str, Array]) -> dict[str, Reading]:
    """The same outputs of another model, which may give probabilities where the first gives logits."""
    return {
        name: replace(reading, probabilities=_holds_probabilities(outputs[name], reading.kind, reading.axis))
        for name, reading in readings.items()
    }


def _read(array: Array, task: Task | None, asked: Kind | None) -> Reading:
    kind, axis = _kind_and_axis(array, task)
    if asked is not None and asked != kind:
        kind, axis = asked, array.ndim - 1
    if kind == "classes" and (array.ndim < 2 or array.shape[axis] < 2):
        kind = "decisions"
    return Reading(kind=kind, axis=axis, probabilities=_holds_probabilities(array, kind, axis))


def _kind_and_axis(array: Array, task: Task | None) -> tuple[Kind, int]:
    if task is not None:
        return OF_TASK.get(task.kind, "values"), task.class_axis or 1
    for axis in (array.ndim - 1, 1):
        if array.ndim >= 2 and array.shape[axis] >= 2 and _holds_probabilities(array, "classes", axis):
            return "classes", axis
    return ("classes", 1) if array.ndim == 2 and array.shape[1] >= 2 else ("values", 1)


def _holds_probabilities(array: Array, kind: Kind, axis: int) -> bool:
    wide = array.astype(np.float64)
    if kind == "values" or not wide.size or wide.min() < 0 or wide.max() > 1 + SUM_TOLERANCE:
        return False
    return kind == "decisions" or bool(np.abs(wide.sum(axis=axis) - 1).max() < SUM_TOLERANCE)
