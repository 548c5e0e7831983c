"""The training loop that every method shares: repeatable on a CPU, and resumable from any optimizer step."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from compression.errors import NotApplicable
from compression.graph.trainable import TrainableGraph
from compression.method import StepContext
from compression.training.batches import Batch, Batches
from compression.training.constraints import Constraint
from compression.training.keeping import Keeper, State
from compression.training.objectives import Objective
from compression.training.optimizing import make_optimizer, optimizer_tensors, rate_of_step, restore_optimizer
from compression.training.record import Epoch, TrainingRecord
from compression.training.settings import LearningMethod

REPORT_EVERY_S = 0.5
OnEpoch = Callable[[Epoch], None]
OnStep = Callable[[int, int, torch.optim.Optimizer], None]
"""Hears the number of an optimizer step, from 0 on, how many there are in all, and the optimizer after it."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one training lies within what the settings describe."""

    epochs: int
    span: tuple[float, float] = (0.0, 1.0)
    """Which part of the learning rate's schedule it goes through."""
    keep: Literal["best", "last"] = "best"
    """Whose weights are left in the view: the best epoch's by validation, where there is a split."""
    count_start: bool = True
    """Whether the weights before training may be the best."""
    stream: int = 0
    """Tells trainings of one step apart, so that each shuffles anew."""
    precision: torch.dtype | None = None
    """What autocast computes in; None for the view's own types."""


def train(
    view: TrainableGraph,
    objective: Objective,
    batches: Batches,
    settings: LearningMethod,
    context: StepContext,
    *,
    constraints: Sequence[Constraint] = (),
    plan: Plan | None = None,
    keeper: Keeper | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
    settle: Callable[[], None] = lambda: None,
) -> TrainingRecord:
    """Trains the view's weights that require gradients, in place.

    On a CPU and with the same number of threads the same weights come out to the bit, also when a run goes on
    from a checkpoint.

    Args:
        view: on the device where it trains; `view.batch_norm` as it should be.
        objective: what is made smaller.
        batches: what it learns from.
        settings: optimizer, schedule, patience.
        context: progress and checkpoints.
        constraints: what must hold after every step.
        plan: epochs and part of the schedule; by default all that the settings say.
        keeper: where checkpoints go; by default the context's, with nothing of the method's own.
        on_epoch: hears of each epoch once it is measured.
        on_step: called after each optimizer step and before the constraints hold; it may move weights, as a
            proximal step does. What it remembers belongs into the keeper's `method`.
        settle: called before each measurement, to bring statistics up to date.

    Raises:
        NotApplicable: the loss was no longer finite before an epoch was done.
        NotTrainable: an operator fails.
    """
    run = _Run(
        view=view,
        objective=objective,
        batches=batches,
        settings=settings,
        context=context,
        constraints=constraints,
        plan=plan or Plan(epochs=settings.epochs),
        keeper=keeper or Keeper(context.checkpoints),
        on_epoch=on_epoch or (lambda _: None),
        on_step=on_step or (lambda *_: None),
        settle=settle,
    )
    return run.go()


@dataclass(kw_only=True)
class _Run:
    view: TrainableGraph
    objective: Objective
    batches: Batches
    settings: LearningMethod
    context: StepContext
    constraints: Sequence[Constraint]
    plan: Plan
    keeper: Keeper
    on_epoch: OnEpoch
    on_step: OnStep
    settle: Callable[[], None]
    best: dict[str, Tensor] = field(default_factory=dict)
    epoch: int = 1
    position: int = 0
    """Batches of the current epoch that are done."""
    losses: list[float] = field(default_factory=list)
    """Of these batches."""
    reported: float = 0.0
    steps_before: int = 0
    """Steps that an earlier attempt did."""

    def __post_init__(self) -> None:
        self.optimizer = make_optimizer(self.view.weights, self.settings)
        self.scaler = torch.amp.GradScaler(
            self.view.device.type, enabled=self.plan.precision is torch.float16
        )
        validated = len(self.batches.validation_rows) > 0
        self.record = TrainingRecord(metric=self.objective.metric if validated else None)
        self.total_steps = max(self.plan.epochs * self.batches.steps_per_epoch, 1)
        self.began = time.monotonic()

    def go(self) -> TrainingRecord:
        saved = self.keeper.take_training()
        for constraint in self.constraints:
            constraint.apply(self.view)
        if saved is not None:
            self._restore(saved)
        elif self.plan.keep == "best":
            self._finish_epoch(self._measured(Epoch(number=0, loss=None)))
        while self.epoch <= self.plan.epochs and not (self.record.stopped_early or self.record.diverged):
            self._train_epoch()
        self._leave_best()
        self.record.seconds += time.monotonic() - self.began
        return self.record

    def _train_epoch(self) -> None:
        number = self.plan.stream * 100_000 + self.epoch
        chunk: list[Batch] = []
        self.view.train()
        for batch in self.batches.epoch(number, self.position):
            chunk.append(batch)
            last = self.position + len(chunk) == self.batches.per_epoch
            if len(chunk) < self.batches.accumulate and not last:
                continue
            if not self._step(chunk):
                return self._diverge()
            self.position += len(chunk)
            chunk = []
            self._report()
            if self.keeper.due() and not last:
                self.keeper.save(self._state())
        loss = sum(self.losses) / max(len(self.losses), 1)
        self.losses, self.position = [], 0
        found = self._measured(Epoch(number=self.epoch, loss=loss))
        self.epoch += 1
        self._finish_epoch(found)
        if self.keeper.due():
            self.keeper.save(self._state())
        return None

    def _step(self, chunk: Sequence[Batch]) -> bool:
        """One optimizer step; False where the loss is no longer finite."""
        samples = sum(batch.samples for batch in chunk)
        self.optimizer.zero_grad()
        for batch in chunk:
            with self._autocast():
                loss = self.objective.loss(self.view, batch)
            if not loss.requires_grad:
                raise NotApplicable(
                    "no gradient reaches the selected layers from the loss",
                    hint="select other layers, or name another loss",
                )
            value = float(loss.detach())
            if not math.isfinite(value):
                return False
            self.losses.append(value)
            torch.autograd.backward(self.scaler.scale(loss * (batch.samples / samples)))
        self._move()
        self.record.steps += 1
        return True

    def _move(self) -> None:
        self.scaler.unscale_(self.optimizer)
        for constraint in self.constraints:
            constraint.shape_gradients(self.view)
        if self.settings.clip_gradients is not None:
            torch.nn.utils.clip_grad_norm_(self.view.parameters(), self.settings.clip_gradients)
        rate = rate_of_step(self.record.steps, self.total_steps, self.plan.span, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.on_step(self.record.steps, self.total_steps, self.optimizer)
        for constraint in self.constraints:
            constraint.apply(self.view)

    def _measured(self, epoch: Epoch) -> Epoch:
        """The epoch with loss and metric on the validation split."""
        loss, metric, losses, metrics = 0.0, 0.0, 0.0, 0.0
        self.settle()
        self.view.eval()
        with torch.no_grad(), self._autocast():
            for batch in self.batches.validation():
                found = self.objective.measure(self.view, batch)
                loss, losses = loss + found.loss * found.weight, losses + found.weight
                if found.metric is not None:
                    metric, metrics = metric + found.metric * found.weight, metrics + found.weight
        if losses:
            epoch.validation_loss = loss / losses
            epoch.metric = metric / metrics if metrics else None
        return epoch

    def _finish_epoch(self, epoch: Epoch) -> None:
        self.record.epochs.append(epoch)
        if self.plan.keep == "best" and (epoch.number > 0 or self.plan.count_start):
            if epoch.is_better_than(self.record.best):
                self.record.best_epoch = epoch.number
                self.best = {name: value.detach().clone() for name, value in self._values()}
            patience, best = self.settings.patience, self.record.best_epoch
            if patience is not None and best is not None and epoch.number - best >= patience:
                self.record.stopped_early = epoch.number < self.plan.epochs
        self._report(force=True)
        self.on_epoch(epoch)

    def _diverge(self) -> None:
        if not self.record.best_epoch and not any(epoch.number for epoch in self.record.epochs):
            if not self.record.steps:
                raise NotApplicable(
                    "the loss is not finite before the first step",
                    where="data.training",
                    hint="look for NaN, infinity and very large numbers in the training data",
                )
            raise NotApplicable(
                f"the loss is no longer finite after {self.record.steps} steps",
                where="learning_rate",
                hint="lower the learning rate, clip gradients, or add a warm-up",
            )
        self.record.diverged = True

    @torch.no_grad()
    def _leave_best(self) -> None:
        if self.best:
            for name, value in self._values():
                value.copy_(self.best[name])
        self.view.eval()

    def _values(self) -> Iterator[tuple[str, Tensor]]:
        """All that training changes."""
        for name, weight in self.view.weights.items():
            if weight.requires_grad:
                yield f"weight:{name}", weight
        for name, statistic in self.view.statistics.items():
            yield f"statistic:{name}", statistic

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.plan.precision is None:
            return nullcontext()
        return torch.autocast(self.view.device.type, dtype=self.plan.precision)

    def _state(self) -> State:
        state = State(
            plain={
                "record": asdict(self.record)
                | {"seconds": self.record.seconds + time.monotonic() - self.began},
                "epoch": self.epoch,
                "position": self.position,
                "losses": self.losses,
                "scaler": self.scaler.state_dict(),
            }
        )
        state.put("now/", dict(self._values()))
        state.put("best/", self.best)
        state.put("optimizer/", optimizer_tensors(self.optimizer))
        return state

    @torch.no_grad()
    def _restore(self, state: State) -> None:
        plain, now = state.plain, state.under("now/")
        for name, value in self._values():
            value.copy_(now[name])
        self.best = {name: value.to(self.view.device) for name, value in state.under("best/").items()}
        restore_optimizer(self.optimizer, state.under("optimizer/"))
        self.scaler.load_state_dict(plain["scaler"])
        self.record = TrainingRecord.of(plain["record"])
        self.epoch, self.position, self.losses = plain["epoch"], plain["position"], plain["losses"]
        self.steps_before = self.record.steps

    def _report(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self.reported < REPORT_EVERY_S:
            return
        self.reported = now
        self.context.report(min(self.record.steps / self.total_steps, 1.0), self._message(now))

    def _message(self, now: float) -> str:
        epoch = self.record.epochs[-1] if self.record.epochs else None
        parts = [f"epoch {min(self.epoch, self.plan.epochs)}/{self.plan.epochs}"]
        if self.losses:
            parts.append(f"loss {self.losses[-1]:.4g}")
        if epoch is not None and epoch.metric is not None:
            parts.append(f"validation {self.record.metric} {epoch.metric:.4f}")
        elif epoch is not None and epoch.validation_loss is not None:
            parts.append(f"validation loss {epoch.validation_loss:.4g}")
        done = self.record.steps - self.steps_before
        if done:
            left = (self.total_steps - self.record.steps) * (now - self.began) / done
            parts.append(f"{_spoken(left)} of training left")
        return ", ".join(parts)


def _spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
