"""Works out what a student is held to: how outputs are read, and which values inside are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compression import runtime
from compression.distillation.features import Feature, find_features, find_value, measured_shapes
from compression.distillation.matching import Match, match_features
from compression.distillation.readings import Kind, Reading, read_again, read_as, read_outputs
from compression.distillation.settings import Pair
from compression.errors import NotApplicable
from compression.method import StepContext

if TYPE_CHECKING:
    import onnx_ir as ir

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class First:
    """One batch, on which both models are looked at."""

    feeds: Mapping[str, Array]
    samples: int

    @property
    def rows(self) -> int:
        """Samples and filling."""
        return len(next(iter(self.feeds.values())))


@dataclass(frozen=True, kw_only=True)
class Insides:
    """The features of both models."""

    student: "ir.Model"
    teacher: "ir.Model"
    student_features: tuple[Feature, ...]
    teacher_features: tuple[Feature, ...]
    first: First
    context: StepContext

    def matches(self, pairs: Sequence[Pair] | None, *, where: str) -> tuple[Match, ...]:
        """The pairs that are named, or those that match by depth and shape.

        Raises:
            NotApplicable: a name is none, two values of a pair have other ranks, or nothing matches.
        """
        if pairs is None:
            found = match_features(self.student_features, self.teacher_features)
            if not found:
                raise NotApplicable(
                    "no layers of student and teacher match by shape",
                    where=where,
                    hint="name the pairs, or leave this loss out",
                )
            return found
        return tuple(self._named(pair, where) for pair in pairs)

    def _named(self, pair: Pair, where: str) -> Match:
        sides = (
            (self.student, self.student_features, pair.student),
            (self.teacher, self.teacher_features, pair.teacher),
        )
        one, other = (self._value(model, features, name, where) for model, features, name in sides)
        if len(one.shape) != len(other.shape):
            raise NotApplicable(
                f"{pair.student!r} of the student has {len(one.shape)} axes, "
                f"{pair.teacher!r} of the teacher {len(other.shape)}",
                where=where,
            )
        return one, other

    def _value(self, model: "ir.Model", features: tuple[Feature, ...], name: str, where: str) -> Feature:
        known = {value.name for node in model.graph for value in node.outputs}
        of_layer = any(feature.layer == name for feature in features)
        shapes = {} if of_layer or name not in known else self._shapes(model, name)
        return find_value(model, name, features, shapes, where=where)

    def _shapes(self, model: "ir.Model", name: str) -> dict[str, tuple[int, ...]]:
        shapes = measured_shapes(model, [name], self.first.feeds, self.context)
        return {value: shape for value, shape in shapes.items() if shape[:1] == (self.first.rows,)}


def look_inside(student: "ir.Model", teacher: "ir.Model", first: First, context: StepContext) -> Insides:
    """Runs both models once with the outputs of all their layers."""
    return Insides(
        student=student,
        teacher=teacher,
        student_features=find_features(student, first.feeds, first.rows, context),
        teacher_features=find_features(teacher, first.feeds, first.rows, context),
        first=first,
        context=context,
    )


def read_both(
    student: "ir.Model",
    teacher: "ir.Model",
    first: First,
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


def _outputs(model: "ir.Model", first: First, context: StepContext) -> dict[str, Array]:
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
