"""Gets a model ready to train: the view, its data, what is learned, and what must hold."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from compression.errors import NotTrainable
from compression.graph import interface, layers, load, select
from compression.graph.trainable import TrainableGraph, check_agreement
from compression.method import Role, StepContext
from compression.training.batches import Batch, Batches
from compression.training.choosing import choose_objective
from compression.training.constraints import Constraint, Held
from compression.training.keeping import Keeper
from compression.training.normalizing import Normalizations, normalize
from compression.training.objectives import Objective
from compression.training.settings import TrainingMethod

if TYPE_CHECKING:
    import onnx_ir as ir

    from compression.graph import Layer

LEAST_BATCH = 8
"""Fewer samples tell a batch's mean and variance too badly for normalization to learn from."""


@dataclass(kw_only=True)
class Training:
    """Everything a method that trains works with."""

    model: "ir.Model"
    view: TrainableGraph
    batches: Batches
    objective: Objective
    constraints: tuple[Constraint, ...]
    """What must hold whatever the method does."""
    chosen: tuple["Layer", ...]
    keeper: Keeper
    precision: torch.dtype | None
    notes: list[str]
    restored: Normalizations = field(default_factory=Normalizations)
    """Those that stand in the model only while it trains."""

    @property
    def learning(self) -> frozenset[str]:
        """Names of the weights that learn."""
        return frozenset(name for name, weight in self.view.weights.items() if weight.requires_grad)

    def settle(self) -> None:
        """Brings the statistics of restored normalizations up to date."""
        self.restored.settle(self.view, self.batches)


def load_for_training(
    model: "ir.Model", settings: TrainingMethod, batches: Batches, context: StepContext
) -> TrainableGraph:
    """The model as a torch module on the context's device, compared with onnxruntime on the first batch.

    Raises:
        NotTrainable: an operator is unknown, or the outputs disagree.
    """
    view = TrainableGraph(model)
    first = next(batches.each(batches.training_rows))
    context.report(0.0, "comparing the trainable graph with onnxruntime")
    check_agreement(view, model, first.feeds)
    view.to(context.device)
    enough = batches.size >= LEAST_BATCH
    frozen = settings.batch_norm == "frozen" or (settings.batch_norm == "auto" and not enough)
    view.batch_norm = "frozen" if frozen else "batch"
    return view


def prepare(
    model: "ir.Model", settings: TrainingMethod, context: StepContext, *, restore: bool = False
) -> Training:
    """All that is needed before the first step.

    Args:
        model: what trains.
        settings: of the training.
        context: data and device.
        restore: whether folded normalizations may come back while it trains; `finish` folds them again. Not where
            the size of a kernel counts, as under a penalty or on a grid: folding scales each channel.

    Raises:
        CompressionError: the model cannot be trained so, or the data does not fit.
    """
    chosen = select(model, settings)
    batches = Batches(
        context.data[Role.TRAINING],
        interface(model)[0],
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        validation=settings.validation,
        seed=context.seed,
    )
    restored = (
        restore_normalizations(model, chosen, settings, batches, context) if restore else Normalizations()
    )
    view, held = learning_view(model, chosen, settings, batches, context, restored=restored)
    objective, note = choose_objective(model, settings, batches, context)
    first = next(batches.each(batches.training_rows))
    precision, notes = choose_precision(view, objective, settings, first)
    return Training(
        model=model,
        view=view,
        batches=batches,
        objective=objective,
        constraints=held,
        chosen=chosen,
        keeper=Keeper(context.checkpoints),
        precision=precision,
        notes=[note, *notes, *restored.words()],
        restored=restored,
    )


def restore_normalizations(
    model: "ir.Model",
    chosen: Sequence["Layer"],
    settings: TrainingMethod,
    batches: Batches,
    context: StepContext,
) -> Normalizations:
    """Puts them into the model where `batch_norm: auto` does.

    Raises:
        NotTrainable: see `normalize`.
    """
    if settings.batch_norm != "auto" or batches.size < LEAST_BATCH:
        return Normalizations()
    context.report(0.0, "measuring what convolutions give")
    original = None if context.original is None else load(context.original, workdir=context.workdir)
    return normalize(model, chosen, batches, context.device, original)


def learning_view(
    model: "ir.Model",
    chosen: Sequence["Layer"],
    settings: TrainingMethod,
    batches: Batches,
    context: StepContext,
    *,
    restored: Normalizations,
) -> tuple[TrainableGraph, tuple[Constraint, ...]]:
    """The model as a view in which only the chosen layers and the normalizations behind them learn, and what holds
    the statistics of the others.

    Raises:
        NotTrainable: see `load_for_training` and `freeze_others`.
    """
    view = load_for_training(model, settings, batches, context)
    freeze_others(model, view, chosen)
    for name in restored.weights:
        view.weights[name].requires_grad_(True)
    held = [name for name in held_statistics(view, chosen) if name not in restored.statistics]
    if held and settings.batch_norm == "auto":
        view.batch_norm = "frozen"
    return view, (Held(view, held),) if held and view.batch_norm == "batch" else ()


def freeze_others(model: "ir.Model", view: TrainableGraph, chosen: Sequence["Layer"]) -> None:
    """Only weights of the chosen layers learn; one that another layer also computes with stays.

    Raises:
        NotTrainable: nothing is left that could learn.
    """
    names = {layer.name for layer in chosen}
    of_others = {v.name for layer in layers(model) if layer.name not in names for v in layer.weights}
    of_chosen = {value.name for layer in chosen for value in layer.weights}
    for name, weight in view.weights.items():
        weight.requires_grad_(name in of_chosen and name not in of_others)
    if not any(weight.requires_grad for weight in view.weights.values()):
        raise NotTrainable(
            "none of the selected layers has weights that could be trained", where=chosen[0].name
        )


def held_statistics(view: TrainableGraph, chosen: Sequence["Layer"]) -> list[str]:
    """Statistics of normalizations that are not selected."""
    ours = {value.name for layer in chosen for value in layer.weights}
    return [name for name in view.statistics if name not in ours]


def choose_precision(
    view: TrainableGraph, objective: Objective, settings: TrainingMethod, first: Batch
) -> tuple[torch.dtype | None, list[str]]:
    """What autocast computes in, None for float32, and a note where that is not what was asked for."""
    device = view.device.type
    wanted = settings.precision
    if wanted == "auto":
        wanted = "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    if wanted == "float32":
        return None, []
    if wanted == "float16" and device == "cpu":
        return None, ["trained in float32: float16 needs a GPU"]
    dtype = torch.bfloat16 if wanted == "bfloat16" else torch.float16
    try:
        with torch.autocast(device, dtype=dtype):
            objective.loss(view.eval(), first)
    except NotTrainable as error:
        return None, [f"trained in float32: in {wanted} {error.message}"]
    return dtype, []


@contextmanager
def repeatable(context: StepContext) -> Iterator[None]:
    """The same numbers on every run with the same threads; what it sets is set back.

    On a GPU kernels without a repeatable form run nevertheless.
    """
    threads, algorithms = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(max(context.threads, 1))
    torch.use_deterministic_algorithms(context.device == "cpu")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(algorithms)
