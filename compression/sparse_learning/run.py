"""Trains under a penalty, cuts to the target, and trains on with the zeros fixed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from compression.errors import NotApplicable
from compression.method import StepContext, StepOutcome
from compression.sparse_learning.finding import find_parts
from compression.sparse_learning.shrinking import Shrinking, masks
from compression.sparse_learning.telling import Told, tell
from compression.sparse_learning.wish import Wish
from compression.training.constraints import Constraint, Masks, preserved
from compression.training.loop import Plan, train
from compression.training.outcomes import finish
from compression.training.record import TrainingRecord
from compression.training.run import Training, prepare
from compression.training.settings import TrainingMethod

if TYPE_CHECKING:
    import onnx_ir as ir

SHRUNK = "shrunk"
"""Where the record of the first training lies, once it has ended."""


def learn(model: "ir.Model", wish: Wish, settings: TrainingMethod, context: StepContext) -> StepOutcome:
    """The whole step.

    Raises:
        CompressionError: the model cannot be trained so, or nothing in it can be penalised.
    """
    training = prepare(model, settings, context)
    kept, words = preserved(model, training.view, zeros=wish.keep_zeros, shared=False)
    parts, left_alone = find_parts(training, wish.penalty, wish.groups)
    shrinking = Shrinking(
        scopes=[parts] if wish.scope == "global" else [[part] for part in parts],
        sparsity=wish.sparsity,
        strength=wish.strength,
        threshold=wish.threshold,
        state=training.keeper.method,
    )
    course = _Course(
        training=training,
        shrinking=shrinking,
        debias_epochs=wish.debias_epochs,
        settings=settings,
        context=context,
        constraints=(*kept, *training.constraints),
    )
    records = (course.shrink(), course.debias())
    told = {name: f"kept {text}" for name, text in words.items()}
    outcomes = finish(training, told, done=f"learned under {wish.penalty}")
    return tell(Told(training, wish, parts, left_alone, shrinking, records), outcomes)


@dataclass(frozen=True, kw_only=True)
class _Course:
    """Both trainings. The second begins the learning rate's schedule anew, so that what is left can recover."""

    training: Training
    shrinking: Shrinking
    debias_epochs: int
    settings: TrainingMethod
    context: StepContext
    constraints: Sequence[Constraint]

    @property
    def share(self) -> float:
        """Of all epochs, those under the penalty."""
        return self.settings.epochs / (self.settings.epochs + self.debias_epochs)

    def shrink(self) -> TrainingRecord:
        """The training under the penalty; where an earlier attempt has ended it, only its record."""
        state = self.shrinking.state
        if SHRUNK in state.plain:
            return TrainingRecord.of(state.plain[SHRUNK])
        plan = Plan(
            epochs=self.settings.epochs,
            span=(0.0, self.share),
            keep="last",
            precision=self.training.precision,
        )
        record = self._train(plan, self.constraints, hears=True)
        if record.diverged:
            raise NotApplicable(
                f"under the penalty the loss is no longer finite after {record.steps} steps",
                where="learning_rate",
                hint="lower the learning rate or the strength, clip gradients, or add a warm-up",
            )
        state.plain[SHRUNK] = asdict(record)
        state.put("mask/", masks([part for scope in self.shrinking.scopes for part in scope]))
        return record

    def debias(self) -> TrainingRecord:
        """Trains what is left without the penalty; with no epochs for it, only measures."""
        fixed = self.shrinking.state.under("mask/")
        device = self.training.view.device
        masked = Masks({name: mask.to(device) for name, mask in fixed.items()})
        plan = Plan(epochs=self.debias_epochs, stream=1, precision=self.training.precision)
        return self._train(plan, (*self.constraints, masked), hears=False)

    def _train(self, plan: Plan, constraints: Sequence[Constraint], *, hears: bool) -> TrainingRecord:
        return train(
            self.training.view,
            self.training.objective,
            self.training.batches,
            self.settings,
            self._context_of((0.0, self.share), "under the penalty")
            if hears
            else self._context_of((self.share, 1.0), "with the zeros fixed"),
            constraints=constraints,
            plan=plan,
            keeper=self.training.keeper,
            on_step=self.shrinking if hears else None,
        )

    def _context_of(self, part: tuple[float, float], words: str) -> StepContext:
        """The context, in which progress lies between these two."""
        (begin, end), heard = part, self.context.report
        return replace(
            self.context, report=lambda done, said: heard(begin + (end - begin) * done, f"{words}: {said}")
        )
