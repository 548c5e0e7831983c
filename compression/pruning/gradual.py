"""Prunes and retrains in rounds, and goes back to earlier weights in between where that is asked for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import onnx_ir as ir
import torch
from torch import Tensor

from compression.errors import NotApplicable
from compression.graph import layers, load
from compression.method import StepContext, StepOutcome
from compression.pruning.masks import Ramp, Scope, keep_largest, sparsity_of_round
from compression.pruning.scores import Scores, at_random, layer_adaptive, magnitudes, sensitivities
from compression.pruning.zeros import ZEROS_ONLY
from compression.training.constraints import Masks
from compression.training.keeping import State
from compression.training.loop import Plan, train
from compression.training.objectives import Imitation
from compression.training.outcomes import finish, stored
from compression.training.record import TrainingRecord
from compression.training.run import Training, prepare
from compression.training.sensing import OutputNoise
from compression.training.settings import TrainingMethod
from compression.weight_targets import find_targets

Criterion = Literal["magnitude", "lamp", "random", "gradient", "snip", "taylor"]
Rewind = Literal["none", "weights", "learning_rate"]
SENSED = 1024
"""Samples that a criterion differentiates on in each round."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The parameters of prune_gradual beside those of training, as its fields describe them."""

    criterion: Criterion
    sparsity: float
    rounds: int
    ramp: Ramp
    scope: Scope
    rewind: Rewind
    initial: str | None
    epochs: int
    final_epochs: int

    @property
    def trainings(self) -> tuple[int, ...]:
        """Epochs after each round's cut; the last one's and the final ones are one training."""
        return (*[self.epochs] * (self.rounds - 1), self.epochs + self.final_epochs)


def prune_gradually(
    model: ir.Model, settings: TrainingMethod, wish: Wish, context: StepContext
) -> StepOutcome:
    """The model in place; see `PruneGradual`.

    Raises:
        CompressionError: the model cannot be trained, or the initial one's weights are others.
    """
    # An initial model has no normalizations to go back to.
    training = prepare(model, settings, context, restore=wish.initial is None)
    before = stored(training)
    rounds = _Rounds(training=training, settings=settings, wish=wish, context=context)
    rounds.go()
    told = {name: f"{float((~mask).float().mean()):.1%} zeros" for name, mask in rounds.masks.items()}
    outcomes = finish(training, told, done="pruned and trained", before=before)
    zeros = sum(int((~mask).sum()) for mask in rounds.masks.values())
    total = sum(mask.numel() for mask in rounds.masks.values())
    share = zeros / total
    return StepOutcome(
        model=model,
        layers=outcomes,
        notes=(
            f"{zeros:,} of {total:,} weights are zero: sparsity {share:.4f}, density {1 - share:.4f}",
            ZEROS_ONLY,
            rounds.words(),
            *training.notes,
            rounds.records[-1].words(),
        ),
        details={
            "zeros": zeros,
            "weights": total,
            "sparsity": share,
            "density": 1 - share,
            "rounds": [round(rounds.share_of(number), 6) for number in range(1, wish.rounds + 1)],
            "training": rounds.records[-1].as_details(),
        },
    )


@dataclass(kw_only=True)
class _Rounds:
    training: Training
    settings: TrainingMethod
    wish: Wish
    context: StepContext
    masks: dict[str, Tensor] = field(default_factory=dict)
    """By name, True where a weight stays, on the CPU."""
    records: list[TrainingRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        view = self.training.view
        targets, _ = find_targets(self.training.chosen, layers(self.training.model))
        self.names = [t.value.name or "" for t in targets if t.value.name in self.training.learning]
        if not self.names:
            raise NotApplicable("the selected layers have no kernels that could be trained", where="layers")
        zeros = sum(int((view.weights[name] == 0).sum()) for name in self.names)
        self.sparsity_before = zeros / sum(view.weights[name].numel() for name in self.names)
        self.early = self._early_weights()

    def go(self) -> None:
        """Goes on with the round in which an earlier attempt was."""
        saved = self.training.keeper.method
        begin = int(saved.plain.get("round", 1))
        self.masks = {name: mask.bool() for name, mask in saved.under("mask/").items()}
        for number in range(begin, self.wish.rounds + 1):
            if number > begin or not self.masks:
                self._cut(number)
            self.records.append(self._train(number))

    def share_of(self, number: int) -> float:
        """The sparsity after a round's cut."""
        end = max(self.wish.sparsity, self.sparsity_before)
        return sparsity_of_round(number, self.wish.rounds, self.sparsity_before, end, self.wish.ramp)

    def words(self) -> str:
        shares = ", ".join(f"{self.share_of(number):.1%}" for number in range(1, self.wish.rounds + 1))
        back = {
            "none": "",
            "weights": "; after each cut the weights that stay went back to "
            + ("those of the initial model" if self.wish.initial else "those before the step"),
            "learning_rate": "; after each cut the learning rate began anew",
        }[self.wish.rewind]
        return f"{self.wish.rounds} rounds by {self.wish.criterion}, to {shares} zeros{back}"

    def _cut(self, number: int) -> None:
        view = self.training.view
        self.context.report(self._done(number), f"round {number} of {self.wish.rounds}: choosing weights")
        zero = {name: view.weights[name].detach().cpu() == 0 for name in self.names}
        scores = self._scores(number)
        self.masks = keep_largest(scores, zero, self.share_of(number), self.wish.scope)
        if self.wish.rewind == "weights":
            self._go_back()

    def _scores(self, number: int) -> Scores:
        training, criterion = self.training, self.wish.criterion
        if criterion == "magnitude":
            return magnitudes(training.view, self.names)
        if criterion == "lamp":
            return layer_adaptive(training.view, self.names)
        if criterion == "random":
            return at_random(training.view, self.names, self.context.seed * 1000 + number)
        # From its own outputs a model differs by nothing at first: what counts is how far they would move.
        objective = OutputNoise() if isinstance(training.objective, Imitation) else training.objective
        batches = training.batches
        rows = batches.drawn_rows(SENSED)
        return sensitivities(training.view, objective, batches.each(rows), self.names, criterion)

    def _train(self, number: int) -> TrainingRecord:
        training, wish = self.training, self.wish
        state = State(plain={"round": number})
        state.put("mask/", self.masks)
        training.keeper.method = state
        device = training.view.device
        masks = Masks({name: mask.to(device) for name, mask in self.masks.items()})
        last = number == wish.rounds
        return train(
            training.view,
            training.objective,
            training.batches,
            self.settings,
            self._told(number),
            constraints=(masks, *training.constraints),
            plan=Plan(
                epochs=wish.trainings[number - 1],
                span=self._span(number) if wish.rewind == "none" else (0.0, 1.0),
                keep="best" if last else "last",
                stream=number,
                precision=training.precision,
            ),
            keeper=training.keeper,
            settle=training.settle,
        )

    def _span(self, number: int) -> tuple[float, float]:
        """Without rewinding all rounds share one schedule."""
        epochs = self.wish.trainings
        total = max(sum(epochs), 1)
        return sum(epochs[: number - 1]) / total, sum(epochs[:number]) / total

    def _done(self, number: int) -> float:
        return self._span(number)[0]

    def _told(self, number: int) -> StepContext:
        """The context with this round's part of the progress."""
        low, high = self._span(number)
        name = f"round {number} of {self.wish.rounds}"
        report = self.context.report
        return replace(
            self.context,
            report=lambda done, words: report(low + (high - low) * done, f"{name}: {words}"),
        )

    def _early_weights(self) -> Mapping[str, Tensor]:
        """What `rewind: weights` goes back to, by name: weights that learn, and statistics."""
        if self.wish.rewind != "weights":
            return {}
        values = dict(_values(self.training))
        if self.wish.initial is None:
            return {name: value.detach().clone() for name, value in values.items()}
        folder = self.context.workdir / "initial"
        folder.mkdir(exist_ok=True)
        other = load(self.context.models[self.wish.initial], workdir=folder)
        found = {name: value.const_value for name, value in other.graph.initializers.items()}
        _check_same(values, found)
        return {
            name: torch.from_numpy(found[name].numpy().copy()).to(value)  # type: ignore[union-attr]
            for name, value in values.items()
        }

    @torch.no_grad()
    def _go_back(self) -> None:
        for name, value in _values(self.training):
            value.copy_(self.early[name])


def _values(training: Training) -> Iterator[tuple[str, Tensor]]:
    for name, weight in training.view.weights.items():
        if weight.requires_grad:
            yield name, weight
    yield from training.view.statistics.items()


def _check_same(ours: Mapping[str, Tensor], found: Mapping[str, ir.TensorProtocol | None]) -> None:
    for name, value in ours.items():
        tensor = found.get(name)
        shape = None if tensor is None else list(tensor.shape.numpy())
        if shape != list(value.shape):
            raise NotApplicable(
                f"the initial model's {name!r} is {shape or 'missing'} where this model's is {list(value.shape)}",
                where="initial",
                hint="upload the checkpoint of this very network, exported the same way",
            )
