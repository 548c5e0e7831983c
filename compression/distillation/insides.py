"""Looks inside student and teacher: what their layers give, and which of that is held together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compression.distillation.features import Feature, find_features, find_value, measured_shapes
from compression.distillation.matching import Match, match_features
from compression.distillation.settings import Hidden, Pair, Relations, Wishes
from compression.errors import NotApplicable
from compression.method import StepContext
from compression.training.batches import Batch

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, kw_only=True)
class Insides:
    """The features of both models."""

    student: "ir.Model"
    teacher: "ir.Model"
    student_features: tuple[Feature, ...]
    teacher_features: tuple[Feature, ...]
    first: Batch
    context: StepContext

    def matches(self, pairs: Sequence[Pair] | None, *, where: str) -> tuple[Match, ...]:
        """The pairs that are named, or those that match by depth and shape.

        Raises:
            NotApplicable: a name is none, two values of a pair have other ranks, or nothing matches.
        """
        if pairs is not None:
            found = tuple(self.named(pair, where=where) for pair in pairs)
            for pair, match in zip(pairs, found, strict=True):
                _check_same_rank(pair, match, where)
            return found
        found = match_features(self.student_features, self.teacher_features)
        if not found:
            raise NotApplicable(
                "no layers of student and teacher match by shape",
                where=where,
                hint="name the pairs, or leave this loss out",
            )
        return found

    def named(self, pair: Pair, *, where: str) -> Match:
        """The values of a pair, whatever their shapes.

        Raises:
            NotApplicable: a name is none.
        """
        return (
            self._value(self.student, self.student_features, pair.student, where),
            self._value(self.teacher, self.teacher_features, pair.teacher, where),
        )

    def _value(self, model: "ir.Model", features: tuple[Feature, ...], name: str, where: str) -> Feature:
        known = {value.name for node in model.graph for value in node.outputs}
        of_layer = any(feature.layer == name for feature in features)
        shapes = {} if of_layer or name not in known else self._shapes(model, name)
        return find_value(model, name, features, shapes, where=where)

    def _shapes(self, model: "ir.Model", name: str) -> dict[str, tuple[int, ...]]:
        shapes = measured_shapes(model, [name], self.first.feeds, self.context)
        return {value: shape for value, shape in shapes.items() if shape[:1] == (_rows(self.first),)}


def look_inside(student: "ir.Model", teacher: "ir.Model", first: Batch, context: StepContext) -> Insides:
    """Runs both models once with the outputs of all their layers."""
    return Insides(
        student=student,
        teacher=teacher,
        student_features=find_features(student, first.feeds, _rows(first), context),
        teacher_features=find_features(teacher, first.feeds, _rows(first), context),
        first=first,
        context=context,
    )


def match_inside(insides: Insides, wishes: Wishes) -> dict[str, tuple[Match, ...]]:
    """Of every loss on values inside, by the wish's name, what it holds together.

    Raises:
        NotApplicable: a named value does not exist or does not fit, or nothing matches.
    """
    found: dict[str, tuple[Match, ...]] = {}
    if wishes.features is not None:
        found["features"] = insides.matches(wishes.features.pairs, where="features.pairs")
    if wishes.attention is not None:
        found["attention"] = _maps(insides, wishes.attention)
    if wishes.relations is not None:
        found["relations"] = _related(insides, wishes.relations)
    return {name: matches for name, matches in found.items() if matches}


def _maps(insides: Insides, wish: Hidden) -> tuple[Match, ...]:
    """Those with positions, over which attention can be spread."""
    matches = insides.matches(wish.pairs, where="attention.pairs")
    found = tuple(match for match in matches if match[0].positions)
    if not found or (wish.pairs is not None and len(found) < len(matches)):
        raise NotApplicable(
            "attention maps need values with positions: maps of a convolution, or steps of a sequence",
            where="attention.pairs",
            hint="name other pairs, or hold the student to features instead",
        )
    return found


def _related(insides: Insides, wish: Relations) -> tuple[Match, ...]:
    """The last pair; none where nothing matches, and outputs are related instead."""
    if wish.pair is not None:
        return (insides.named(wish.pair, where="relations.pair"),)
    return match_features(insides.student_features, insides.teacher_features)[-1:]


def _check_same_rank(pair: Pair, match: Match, where: str) -> None:
    one, other = (len(feature.shape) for feature in match)
    if one != other:
        raise NotApplicable(
            f"{pair.student!r} of the student has {one} axes per sample, "
            f"{pair.teacher!r} of the teacher {other}",
            where=where,
            hint="pair maps with maps and vectors with vectors",
        )


def _rows(batch: Batch) -> int:
    """Samples and filling."""
    return len(next(iter(batch.feeds.values())))
