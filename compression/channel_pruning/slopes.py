"""Taylor scores: how much the loss would change, to first order, if a unit's weights became zero."""

from collections.abc import Mapping, Sequence

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
    """By group sum |g * w| over all weights that leave with a unit, g averaged over samples; and what the loss was.

    Molchanov et al. 2017 (arXiv:1611.06440), equation 7, by weight instead of by activation, since the weights that
    read a unit and its biases know of it too (Fang et al. 2023, arXiv:2301.12900). Relative to the mean over all
    units: changes of the loss can be compared between layers as they are.

    Raises:
        NotTrainable: the model cannot be differentiated.
    """
    view, objective, note = sense(model, batches, context)
    _differentiate(view, objective, batches, samples, context)
    found = {group.id: sum((_owed(view, slot) for slot in group.slots), _nothing(group)) for group in groups}
    mean = float(torch.cat(list(found.values())).mean()) or 1.0
    return {name: np.asarray(scores / mean) for name, scores in found.items()}, note


def _differentiate(
    view: TrainableGraph, objective: Objective, batches: Batches, samples: int, context: StepContext
) -> None:
    """Leaves the gradient of the mean loss over at most so many samples in the view."""
    view.eval()
    view.zero_grad()
    rows = batches.training_rows
    if len(rows) > samples:
        rows = np.sort(np.random.default_rng(context.seed).choice(rows, samples, replace=False))
    done = 0
    for batch in batches.each(rows):
        torch.autograd.backward(objective.loss(view, batch) * (batch.samples / len(rows)))
        done += batch.samples
        context.report(done / len(rows), "measuring what the loss owes to each unit")


@torch.no_grad()
def _owed(view: TrainableGraph, slot: Slot) -> Tensor:
    """sum |g * w| by unit, [size], float64; zeros for what is not trained."""
    weight = view.weights.get(slot.value.name or "")
    if weight is None or weight.grad is None:
        return torch.zeros(len(slot.indices), dtype=torch.float64)
    moved = (weight * weight.grad).abs().movedim(slot.axis, 0)
    by_position = moved.reshape(len(moved), -1).sum(dim=1).double().cpu()
    return by_position[torch.from_numpy(slot.indices)].sum(dim=1)


def _nothing(group: Group) -> Tensor:
    return torch.zeros(group.size, dtype=torch.float64)
