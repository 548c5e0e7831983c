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
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from compression import runtime
from compression.errors import NotApplicable
from compression.evaluation.task import Task
from compression.method import StepContext

if TYPE_CHECKING:
    import onnx_ir as ir

    from compression.training.batches import Batch

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


def read_both(
    student: "ir.Model",
    teacher: "ir.Model",
    first: "Batch",
    context: StepContext,
    *,
    known: Mapping[str, Reading],
    asked: Kind | None,
) -> tuple[dict[str, Reading], dict[str, Reading]]:
    """How the outputs of student and teacher are read.

    Args:
        student: one model.
        teacher: the other.
        first: what they are run on.
        context: threads.
        known: what the labels tell of outputs.
        asked: what the user says of the others.

    Raises:
        NotApplicable: no output holds floats, or the two models' outputs differ in shape.
    """
    answers, found = (_outputs(model, first, context) for model in (teacher, student))
    read = read_outputs(answers, task=None, asked=asked)
    for name, reading in known.items():
        if name in read:
            read[name] = read_as(answers[name], reading.kind, reading.axis)
    _check_same_shapes(read, answers, found)
    return read_again(read, found), read


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


def _outputs(model: "ir.Model", first: "Batch", context: StepContext) -> dict[str, Array]:
    session = runtime.open_session(model, device="cpu", threads=context.threads)
    return {
        name: array[: first.samples]
        for name, array in runtime.run(session, first.feeds).items()
        if isinstance(array, np.ndarray) and array.ndim and len(array) >= first.samples
    }


def _check_same_shapes(
    read: Mapping[str, Reading], answers: Mapping[str, Array], found: Mapping[str, Array]
) -> None:
    for name in read:
        shapes = [list(side[name].shape) if name in side else None for side in (found, answers)]
        if shapes[0] != shapes[1]:
            raise NotApplicable(
                f"the student's output {name!r} is {shapes[0]} where the teacher's is {shapes[1]}", where=name
            )
