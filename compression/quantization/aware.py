"""Quantization-aware training: integers are placed first, then the weights and all scales learn under their rounding.

What trains is the very region that was chosen, with normalization already folded into the layers before it by its
trained statistics: what is learned is what will be computed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.errors import NotTrainable
from compression.graph import Layer, interface
from compression.graph import layers as layers_of
from compression.graph.trainable import TrainableGraph, write_back
from compression.method import Role, StepContext, StepOutcome
from compression.quantization.affine import Affine, Range
from compression.quantization.candidates import Candidate, Decision
from compression.quantization.latency import Speed
from compression.quantization.qdq import activation_parameters
from compression.quantization.simulated import PACE, Simulated, simulate
from compression.quantization.static import Ground, StaticIntegers, StaticOptions, choose, prepare
from compression.training.batches import Batches
from compression.training.choosing import choose_objective
from compression.training.keeping import Keeper
from compression.training.loop import Plan, train
from compression.training.record import TrainingRecord
from compression.training.run import choose_precision, load_for_training
from compression.training.settings import TrainingMethod

_PLACED = 0.3
"""Share of the progress that goes to finding where integers go."""


def train_quantized(
    model: ir.Model,
    chosen: Sequence[Layer],
    settings: TrainingMethod,
    options: StaticOptions,
    *,
    learn_scales: bool,
    context: StepContext,
) -> StepOutcome:
    """Place integers as quantize_static does, train under their rounding, and write them with what was learned.

    Raises:
        DataMismatch: the data does not fit the model.
        NotApplicable: a weight holds NaN or infinity; no loss fits the labels.
        NotTrainable: the model cannot be trained.
    """
    keeper = Keeper(context.checkpoints)
    ground = prepare(model, chosen, options, _calibrating(context))
    if isinstance(ground, StepOutcome):
        return _untrained(ground)
    decision = _decide(ground, options, keeper)
    if decision.chosen is None:
        return _untrained(ground.told(decision, (), {}))
    trained = _Trained(ground, decision.chosen, settings, replace(context, report=_later(context)))
    record, note = trained.learn(keeper, learn_scales=learn_scales)
    candidate, moved = trained.written()
    return ground.told(
        decision.choosing(candidate),
        (note, record.words(), "the outputs are compared with those of the model before training"),
        {"training": record.as_details(), "scales_moved": moved},
    )


class _Trained:
    """The chosen region as it trains, and what becomes of it."""

    def __init__(
        self, ground: Ground, winner: Candidate, settings: TrainingMethod, context: StepContext
    ) -> None:
        self.ground, self.winner, self.settings, self.context = ground, winner, settings, context
        self.floats = ground.search.prepared
        self.copy = self.floats.clone()
        integers = ground.integers
        self.region = integers.region(self.copy, winner.layers, winner.groups)
        self.before = {
            value.name or "": affine
            for value, affine in activation_parameters(self.region, integers.ranges, integers.target).items()
        }
        self.made = simulate(self.copy, self.region, integers.ranges, integers.target)
        self.batches = Batches(
            context.data[Role.TRAINING],
            interface(self.floats)[0],
            batch_size=settings.batch_size,
            accumulate=settings.accumulate,
            validation=settings.validation,
            seed=context.seed,
        )
        self.view = self._view()
        self.start = self._scales()

    def learn(self, keeper: Keeper, *, learn_scales: bool) -> tuple[TrainingRecord, str]:
        """Trains; the record, and a sentence on what was learned from."""
        names = self._own_weights() | frozenset(self.made.logarithms if learn_scales else ())
        for name, weight in self.view.weights.items():
            weight.requires_grad_(name in names)
        objective, note = choose_objective(self.floats, self.settings, self.batches, self.context)
        first = next(self.batches.each(self.batches.training_rows))
        precision, notes = choose_precision(self.view, objective, self.settings, first)
        record = train(
            self.view,
            objective,
            self.batches,
            self.settings,
            self.context,
            constraints=(StepSizes(self.made),),
            plan=Plan(epochs=self.settings.epochs, precision=precision),
            keeper=keeper,
        )
        return record, "; ".join((note, *notes))

    def written(self) -> tuple[Candidate, dict[str, float]]:
        """The region in integers from trained floats and scales, and how far scales moved, as factors.

        Raises:
            NotTrainable: the trained region cannot be built, which the untrained one could.
        """
        scales, integers = self._scales(), self.ground.integers
        write_back(self.view, self.copy)
        floats, trained = self.floats.clone(), self.copy.graph.initializers
        for name, value in floats.graph.initializers.items():
            if name in self.view.weights or name in self.view.statistics:
                value.const_value = trained[name].const_value
        learned = StaticIntegers(
            {**integers.ranges, **self._ranges(scales)},
            integers.target,
            {layer: scales[log].reshape(-1) for layer, log in self.made.weights.items()},
        )
        search = replace(self.ground.search, integers=learned)
        again = search.rebuild(self.winner, floats)
        if again is None:
            raise NotTrainable(f"the trained model cannot be quantized: {search.problems[-1]}")
        logs = self.made.logarithms
        factors = np.concatenate([(scales[log] / self.start[log]).reshape(-1) for log in logs])
        low, middle, high = (round(float(np.quantile(factors, share)), 4) for share in (0.0, 0.5, 1.0))
        return again, {"least": low, "median": middle, "most": high}

    def _ranges(self, scales: Mapping[str, NDArray[np.float32]]) -> dict[str, Range]:
        """What the learned scales reach; one that did not move gives the very range that was calibrated."""
        moved = {
            name: float(scales[log])
            for name, log in self.made.activations.items()
            if scales[log] != self.start[log]
        }
        return {name: reached(scale, self.before[name]) for name, scale in moved.items()}

    def _view(self) -> TrainableGraph:
        view = load_for_training(self.copy, self.settings, self.batches, self.context)
        if self.settings.batch_norm != "batch":
            view.batch_norm = "frozen"
        view.learn((*self.made.logarithms, *self._own_weights()))
        return view

    def _own_weights(self) -> frozenset[str]:
        """Weights and biases of the chosen layers that no other layer computes with."""
        ours, theirs = set[str](), set[str]()
        for layer in layers_of(self.floats):
            names = {value.name or "" for value in layer.weights if _is_float(value)}
            (ours if layer.name in self.ground.reasons else theirs).update(names)
        return frozenset(ours - theirs)

    def _scales(self) -> dict[str, NDArray[np.float32]]:
        """By initializer, what the logarithms stand for."""
        weights = self.view.weights
        return {name: scale_of(weights[name]).detach().cpu().numpy() for name in self.made.logarithms}


@dataclass(frozen=True)
class StepSizes:
    """Gives scales the gradients of learned step sizes, scaled to match those of weights.

    Esser et al. 2020 (arXiv:1902.08153), section 2.2, scale by g = 1 / sqrt(N Qp). A step of l = log s moves s by the
    share that a step of s would: dL/dl g / s^2, to first order.
    """

    made: Simulated

    def apply(self, view: TrainableGraph) -> None:
        pass

    @torch.no_grad()
    def shape_gradients(self, view: TrainableGraph) -> None:
        for name, factor in self.made.factors.items():
            weight = view.weights[name]
            gradient: Tensor | None = weight.grad
            if gradient is not None:
                gradient.mul_(factor / (PACE * scale_of(weight)) ** 2)


def scale_of(logarithm: Tensor) -> Tensor:
    return torch.exp(PACE * logarithm)


def reached(scale: float, parameters: Affine) -> Range:
    """The range that integers of these parameters reach at another scale."""
    info, zero = np.iinfo(parameters.dtype), int(parameters.zero_point)
    return Range(low=(int(info.min) - zero) * scale, high=(int(info.max) - zero) * scale)


def _decide(ground: Ground, options: StaticOptions, keeper: Keeper) -> Decision:
    """Where integers go; after a restart, where they went: timing again could choose otherwise."""
    kept: dict[str, Any] = keeper.method.plain
    if kept:
        return ground.search.again(
            kept["name"],
            frozenset(kept["groups"]),
            frozenset(kept["layers"]),
            Speed(**kept["speed"]) if kept["speed"] else None,
        )
    decision = choose(ground.search, options)
    winner = decision.chosen
    if winner is not None:
        keeper.method.plain = {
            "name": winner.name,
            "groups": sorted(winner.groups),
            "layers": sorted(winner.layers),
            "speed": asdict(winner.speed) if winner.speed else None,
        }
    return decision


def _calibrating(context: StepContext) -> StepContext:
    """The context for placing integers: ranges come from the training data where no other is given."""
    data = {Role.CALIBRATION: context.data[Role.TRAINING], **context.data}
    return replace(context, data=data, report=lambda done, words: context.report(_PLACED * done, words))


def _later(context: StepContext) -> Any:
    return lambda done, words: context.report(_PLACED + (1 - _PLACED) * done, words)


def _untrained(outcome: StepOutcome) -> StepOutcome:
    note = "nothing was trained: no layer computes in integers, so that there is no rounding to get used to"
    return replace(outcome, notes=(*outcome.notes, note))


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()
