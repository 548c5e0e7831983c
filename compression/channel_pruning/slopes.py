"""Taylor scores: how much the loss would change, to first order, if a unit's weights became zero."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from compression.channel_pruning.scores import Scores
from compression.graph.channels import Group, Slot
from compression.graph.trainable import TrainableGraph
from compression.method import StepContext
from compression.training.batches import Batches
from compression.training.objectives import Objective
from compression.training.sensing import sense


def taylor(
    model: ir.Model, groups: Sequence[Group], batches: Batches, context: StepContext, samples: int
) -> tuple[Mapping[str, Scores], str]:
    """By group (sum of g * w over the weights that make a unit)^2, averaged over batches; and what the loss was.

    Molchanov et al. 2019 (arXiv:1906.10771), equation 8, on the unit as a whole. Relative to the mean over all
    units, since changes of the loss can be compared between layers as they are.

    Raises:
        NotTrainable: the model cannot be differentiated.
    """
    view, objective, note = sense(model, batches, context)
    totals = {group.id: torch.zeros(group.size, dtype=torch.float64) for group in groups}
    for done, count in _gradients(view, objective, batches, samples, context.seed):
        for group in groups:
            totals[group.id] += _change(view, group).square() * count
        context.report(done, "measuring what the loss owes to each unit")
    mean = float(torch.cat(list(totals.values())).mean()) or 1.0
    return {name: np.asarray(total / mean) for name, total in totals.items()}, note


def _gradients(
    view: TrainableGraph, objective: Objective, batches: Batches, samples: int, seed: int
) -> Iterator[tuple[float, int]]:
    """Leaves each batch's gradients in the view, and tells the share done and the batch's samples."""
    view.eval()
    rows = batches.training_rows
    if len(rows) > samples:
        rows = np.sort(np.random.default_rng(seed).choice(rows, samples, replace=False))
    done = 0
    for batch in batches.each(rows):
        view.zero_grad()
        torch.autograd.backward(objective.loss(view, batch))
        done += batch.samples
        yield done / len(rows), batch.samples


def _change(view: TrainableGraph, group: Group) -> Tensor:
    """The loss's first-order change by unit, [size], float64."""
    found = torch.zeros(group.size, dtype=torch.float64)
    for slot in group.producers:
        found += _product(view, slot)
    return found


@torch.no_grad()
def _product(view: TrainableGraph, slot: Slot) -> Tensor | float:
    weight = view.weights.get(slot.value.name or "")
    if weight is None or weight.grad is None:
        return 0.0
    moved = (weight * weight.grad).movedim(slot.axis, 0)
    by_position = moved.reshape(len(moved), -1).sum(dim=1).double().cpu()
    return by_position[torch.from_numpy(slot.indices)].sum(dim=1)
