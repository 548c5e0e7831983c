"""What a report says of a distillation: sentences, the layers' outcomes, and figures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compression.distillation.goals import Goals
from compression.distillation.lesson import Lesson
from compression.distillation.matching import Match
from compression.distillation.study import Study
from compression.graph import layers
from compression.method import LayerOutcome

if TYPE_CHECKING:
    import onnx_ir as ir

SHOWN_PAIRS = 4


def notes(lesson: Lesson, learned: Study) -> Iterator[str]:
    """How large the student is, how it was made, and what it learned from."""
    student, teacher = parameters(lesson.student), parameters(lesson.teacher)
    yield f"the student has {student:,} parameters, its teacher {teacher:,}: {lesson.taught_by}"
    yield from lesson.derivation.notes
    yield f"learned from {'; '.join(_sources(learned))}"
    if lesson.wishes.alpha < 1 and not lesson.labels_count:
        yield "without labels the teacher's outputs count in full, whatever alpha says"


def outcomes(lesson: Lesson, trained: Sequence[LayerOutcome]) -> tuple[LayerOutcome, ...]:
    """Of layers that left with their blocks, then of those that learned, with what was done to them before."""
    dropped = lesson.derivation.dropped.items()
    gone = (LayerOutcome(layer=name, changed=True, note=reason) for name, reason in dropped)
    return (*gone, *(_with_derivation(lesson, outcome) for outcome in trained))


def details(lesson: Lesson, learned: Study, losses: Mapping[str, float]) -> dict[str, Any]:
    """For report.json.

    Args:
        lesson: what was worked with.
        learned: what the student was held to.
        losses: on one batch at the end, before their weights.
    """
    return {
        "losses_at_the_end": {name: round(value, 6) for name, value in losses.items()},
        "pairs": {
            name: [{"student": one.value, "teacher": other.value} for one, other in matches]
            for name, matches in learned.pairs.items()
        },
        "parameters": {"student": parameters(lesson.student), "teacher": parameters(lesson.teacher)},
    }


def parameters(model: "ir.Model") -> int:
    """Elements of all layers' weights, each counted once."""
    values = {value for layer in layers(model) for value in layer.weights}
    return sum(int(value.const_value.size) for value in values if value.const_value is not None)


def _with_derivation(lesson: Lesson, outcome: LayerOutcome) -> LayerOutcome:
    words = lesson.derivation.words(outcome.layer)
    if not words:
        return outcome
    return outcome.model_copy(update={"note": f"{words}, {outcome.note}", "changed": True})


def _sources(learned: Study) -> Iterator[str]:
    """Each with its weight."""
    goals = learned.goals
    if goals.soft:
        yield f"the teacher's {_soft(goals)} (weight {goals.soft:g})"
    if goals.hard:
        yield f"labels ({goals.hard:g})"
    if goals.hints:
        yield f"the teacher's features ({goals.features:g}){_places(learned, 'features')}"
    if goals.maps:
        yield f"its attention maps ({goals.attention:g}){_places(learned, 'attention')}"
    if goals.distance or goals.angle:
        where = _places(learned, "relations") or " of the outputs"
        yield f"its distances ({goals.distance:g}) and angles ({goals.angle:g}) between samples{where}"
    if goals.gradients:
        yield f"its input gradients ({goals.gradients:g})"


def _soft(goals: Goals) -> str:
    values = all(reading.kind == "values" for reading in goals.student.values())
    return "outputs" if values else f"soft labels at temperature {goals.temperature:g}"


def _places(learned: Study, wish: str) -> str:
    matches: Sequence[Match] = learned.pairs.get(wish, ())
    shown = [f"{one.layer} = {other.layer}" for one, other in matches[:SHOWN_PAIRS]]
    more = f" and {len(matches) - len(shown)} more" if len(matches) > len(shown) else ""
    return f" at {', '.join(shown)}{more}" if shown else ""
