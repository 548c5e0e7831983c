"""What tells weights that matter from others: their size, or what the loss owes to them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from compression.graph.trainable import TrainableGraph
from compression.training.batches import Batch
from compression.training.objectives import Objective

Sensitivity = Literal["gradient", "snip", "taylor"]
Scores = Mapping[str, Tensor]
"""By initializer name, in the weights' shapes, floats on the CPU; the larger, the more a weight matters."""


def magnitudes(view: TrainableGraph, names: Sequence[str]) -> Scores:
    """|w| (Han et al. 2015)."""
    return {name: view.weights[name].detach().abs().float().cpu() for name in names}


def layer_adaptive(view: TrainableGraph, names: Sequence[str]) -> Scores:
    """LAMP: w^2 over the sum of squares of all weights of its tensor that are no smaller (Lee et al. 2021,
    arXiv:2010.07611, equation 4), so that one ranking of all layers leaves each its share."""
    weights = {name: view.weights[name].detach() for name in names}
    return {name: _lamp(weight.reshape(-1)).reshape(weight.shape) for name, weight in weights.items()}


def _lamp(weights: Tensor) -> Tensor:
    """Of flat weights; of equal ones the later is the smaller."""
    squares = weights.double().square().cpu()
    ordered, places = squares.sort(descending=True, stable=True)
    scores = torch.empty_like(squares)
    scores[places] = ordered / ordered.cumsum(0).clamp(min=torch.finfo(torch.float64).tiny)
    return scores


def at_random(view: TrainableGraph, names: Sequence[str], seed: int) -> Scores:
    """Uniform in 0..1, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(view.weights[name].shape, generator=generator) for name in names}


def sensitivities(
    view: TrainableGraph,
    objective: Objective,
    batches: Iterable[Batch],
    names: Sequence[str],
    criterion: Sensitivity,
    *,
    heard: Callable[[int], None] = lambda _: None,
) -> Scores:
    """The mean over batches, weighted by their samples, of

    | criterion | of each weight w with gradient g = dL/dw |
    |---|---|
    | `gradient` | abs(g) |
    | `snip` | abs(w * g) (Lee et al. 2019, arXiv:1810.02340, equation 5, not normalised) |
    | `taylor` | (w * g)^2 (Molchanov et al. 2019, arXiv:1906.10771, equation 8) |

    Args:
        view: in evaluation mode afterwards; gradients of its weights are spent.
        objective: what gives the loss.
        batches: to average over.
        names: of the weights.
        criterion: one of the table.
        heard: told the samples that are done.

    Raises:
        NotTrainable: an operator fails.
    """
    totals = {name: torch.zeros_like(view.weights[name], dtype=torch.float32) for name in names}
    view.eval()
    samples = 0
    for batch in batches:
        view.zero_grad()
        torch.autograd.backward(objective.loss(view, batch))
        for name in names:
            totals[name] += _share(view.weights[name], criterion) * batch.samples
        samples += batch.samples
        heard(samples)
    view.zero_grad()
    return {name: (total / max(samples, 1)).cpu() for name, total in totals.items()}


@torch.no_grad()
def _share(weight: torch.nn.Parameter, criterion: Sensitivity) -> Tensor:
    if weight.grad is None:
        return torch.zeros_like(weight, dtype=torch.float32)
    if criterion == "gradient":
        return weight.grad.abs().float()
    product = (weight * weight.grad).float()
    return product.abs() if criterion == "snip" else product.square()
