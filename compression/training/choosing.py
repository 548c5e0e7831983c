"""Picks the objective from a user's wish, the labels and the model's outputs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from compression import runtime
from compression.distillation.readings import Kind, Reading, read_again, read_outputs
from compression.distillation.teacher import Teacher
from compression.errors import DataMissing, NotApplicable
from compression.evaluation.task import IGNORED_LABEL, Task, find_task, squeezed
from compression.graph import load
from compression.method import Role, StepContext
from compression.training.batches import Batches
from compression.training.objectives import Guided, Imitation, Labels, Objective
from compression.training.settings import GuidedMethod, Loss

if TYPE_CHECKING:
    import onnx_ir as ir

LOOKED_AT = 256
"""Samples that tell the classes in use, and whether an output gives probabilities."""

Array = npt.NDArray[Any]
LOSS_OF: Mapping[Kind, str] = {
    "classes": "cross_entropy",
    "decisions": "binary_cross_entropy",
    "values": "mse",
}
KIND_OF: Mapping[str, Kind] = {loss: kind for kind, loss in LOSS_OF.items()} | {"mae": "values"}


class Aim(Protocol):
    """What decides on a loss: of a method that trains, or of one that only differentiates."""

    @property
    def loss(self) -> Loss: ...

    @property
    def label_smoothing(self) -> float: ...


def choose_objective(
    model: "ir.Model", settings: Aim, batches: Batches, context: StepContext
) -> tuple[Objective, str]:
    """What is to be trained for, and a sentence that says so.

    Raises:
        NotApplicable: the labels fit no output, or not in the way that the loss asks for.
        DataMissing: the loss needs labels and there are none.
    """
    if settings.loss == "self" or (settings.loss == "auto" and not batches.labelled):
        imitation, names = _imitate(model, batches, context)
        return imitation, f"learned without labels from the original model's outputs ({names})"
    if not batches.labelled:
        raise DataMissing(
            f"the loss {settings.loss} needs labels; the training dataset has none",
            where="data.training",
            hint="add an array named 'labels', or set loss to self",
        )
    labels, outputs = _look(model, batches, context)
    objective, note = _learn(labels, outputs, settings)
    alpha = settings.alpha if isinstance(settings, GuidedMethod) else 0.0
    if not alpha or objective.metric is None:
        return objective, note
    imitation, names = _imitate(model, batches, context)
    told = f"with weight {alpha:g} from the original model's outputs ({names})"
    return Guided(objective, imitation, alpha), f"{note}, and {told}"


def _look(model: "ir.Model", batches: Batches, context: StepContext) -> tuple[Array, dict[str, Array]]:
    """Labels and outputs of a few samples, drawn, so that a file sorted by class shows more than one."""
    session = runtime.open_session(model, device="cpu", threads=context.threads)
    rows = batches.drawn_rows(LOOKED_AT)
    labels: list[Array] = []
    outputs: dict[str, list[Array]] = {}
    for batch in batches.each(rows):
        if batch.labels is not None:
            labels.append(batch.labels)
        for name, value in runtime.run(session, batch.feeds).items():
            if isinstance(value, np.ndarray) and value.ndim:
                outputs.setdefault(name, []).append(value[: batch.samples])
    joined = {name: _joined(parts) for name, parts in outputs.items()}
    return (_joined(labels) if labels else np.zeros(0)), joined


def _joined(parts: list[Array]) -> Array:
    """All of them, or the first where their shapes differ."""
    same = all(part.shape[1:] == parts[0].shape[1:] for part in parts)
    return np.concatenate(parts) if same else parts[0]


def _learn(labels: Array, outputs: dict[str, Array], settings: Aim) -> tuple[Labels, str]:
    plain = squeezed(labels)
    output, kind, axis, one_hot = _by_rule(labels, outputs)
    if settings.loss != "auto" and KIND_OF[settings.loss] != kind:
        kind = KIND_OF[settings.loss]
        same = [name for name, array in outputs.items() if squeezed(array).shape[1:] == plain.shape[1:]]
        if kind == "classes" or not same:
            shapes = ", ".join(f"{name} {list(array.shape[1:])}" for name, array in outputs.items())
            raise NotApplicable(
                f"the loss {settings.loss} does not fit labels of shape {['N', *labels.shape[1:]]} "
                f"and the outputs ({shapes} per sample)",
                where="loss",
                hint="set loss to auto, or give labels in an output's shape",
            )
        output, axis, one_hot = same[0], 1, False
    reading = _reading(outputs[output], output, kind, axis)
    loss = "mae" if settings.loss == "mae" else LOSS_OF[kind]
    objective = Labels(output, reading, kind=loss, smoothing=settings.label_smoothing, one_hot=one_hot)
    return objective, f"learned from labels: {loss.replace('_', ' ')} on the output {output!r}"


def _by_rule(labels: Array, outputs: dict[str, Array]) -> tuple[str, Kind, int, bool]:
    """Output, kind, class axis and whether labels are one-hot, as the module `objectives` tabulates."""
    task: Task = find_task(labels, outputs)
    plain = squeezed(labels)
    if task.kind == "classes":
        raise NotApplicable(
            f"the output {task.output!r} gives class numbers, from which no gradient comes",
            hint="export the model with its scores as an output, or set loss to self",
        )
    if task.kind == "scores":
        return task.output, "classes", task.class_axis or 1, plain.ndim > task.labels.ndim
    binary = task.kind == "binary" or bool(np.isin(plain, (0, 1, IGNORED_LABEL)).all())
    return task.output, "decisions" if binary else "values", 1, False


def _reading(output: Array, name: str, kind: Kind, axis: int) -> Reading:
    found = read_outputs({name: output}, task=None, asked=kind)[name]
    if kind != "classes":
        return found
    moved = np.moveaxis(output, axis, -1)
    return Reading(
        kind=kind,
        axis=axis,
        probabilities=read_outputs({name: moved}, task=None, asked=kind)[name].probabilities,
    )


def _imitate(model: "ir.Model", batches: Batches, context: StepContext) -> tuple[Imitation, str]:
    """Learn from the job's original model, from the step's own where there is no other; and from which outputs."""
    source = model if context.original is None else load(context.original, workdir=context.workdir)
    _, theirs = _look(source, batches, context)
    _, ours = _look(model, batches, context)
    read = read_outputs(theirs, task=None, asked=None)
    teacher = Teacher(source, tuple(read), context)
    teacher.prepare(context.data[Role.TRAINING], lambda _: context.report(0.0, "asking the original model"))
    names = ", ".join(repr(name) for name in read)
    return Imitation(teacher, read_again(read, ours), read), names
