"""How far the model's outputs move with what each layer gives: the second factor of a Kronecker-factored curvature.

With g the gradient of the outputs' relative change over a layer's outputs, a change dW of its weight moves the model's
outputs by E |g^T dW x|^2, about tr(G dW C dW^T) with G = E g g^T and C = E x x^T (Martens and Grosse 2015,
arXiv:1503.05671; of convolutions G is summed over positions: Grosse and Martens 2016, arXiv:1602.01407). Truncating
S W for G = S S is the best for that: GFWSVD (arXiv:2505.17974), here with the Gauss-Newton matrix of all outputs.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.graph import interface
from compression.graph.trainable import TrainableGraph, check_agreement
from compression.lowrank.finding import Place
from compression.lowrank.moments import MAX_WIDTH, grouped
from compression.lowrank.wish import GRADIENT_BATCH
from compression.method import Role, StepContext
from compression.training.batches import Batch, Batches
from compression.training.objectives import feed_tensors, of_samples
from compression.training.run import repeatable
from compression.training.sensing import OutputNoise

Doubles = NDArray[np.float64]
_LEAST = 0.01
"""Of the mean, about, that directions in which the outputs hardly move count for."""


def gather_curvature(
    model: ir.Model, places: Sequence[Place], context: StepContext, *, most: int
) -> dict[str, Path]:
    """Files with G of shape (outputs, outputs), up to one factor for all, by the name of the place.

    There is none for a place that moves no output, and for one with more than MAX_WIDTH outputs.

    Raises:
        NotTrainable: the model cannot be differentiated.
    """
    batches = Batches(
        context.data[Role.CALIBRATION], interface(model)[0], batch_size=GRADIENT_BATCH, seed=context.seed
    )
    rows = batches.drawn_rows(most)
    view = TrainableGraph(model)
    view.batch_norm = "frozen"
    view.eval()
    check_agreement(view, model, next(batches.each(rows)).feeds)
    view.to(context.device)
    groups = list(grouped([place for place in places if _width(place) <= MAX_WIDTH], _width))
    found: dict[str, Path] = {}
    with repeatable(context):
        for number, group in enumerate(groups):
            context.report(number / len(groups), f"differentiating the outputs over {len(group)} layers")
            for count, (name, total) in enumerate(_sums(view, group, batches.each(rows)).items()):
                if total.is_known:
                    found[name] = context.workdir / f"curvature-{number}-{count}.npy"
                    np.save(found[name], total.shrunk())
    return found


def _sums(view: TrainableGraph, group: Sequence[Place], batches: Iterable[Batch]) -> dict[str, "_Sum"]:
    sums = {place.name: _Sum(_width(place)) for place in group}
    for batch in batches:
        for name, grads in _gradients(view, group, batch):
            sums[name].add(grads)
    return sums


class _Sum:
    """Of g g^T."""

    def __init__(self, width: int) -> None:
        self.rows = 0
        self.matrix = np.zeros((width, width))

    def add(self, grads: Doubles) -> None:
        self.matrix += grads.T @ grads
        self.rows += len(grads)

    @property
    def is_known(self) -> bool:
        return bool(np.isfinite(self.matrix).all()) and float(np.trace(self.matrix)) > 0

    def shrunk(self) -> Doubles:
        """Nearer to the identity with the same trace the fewer rows it is from, so that chance decides little."""
        width = len(self.matrix)
        weight = _LEAST + width / self.rows
        mean = float(np.trace(self.matrix)) / width
        return (self.matrix + weight * mean * np.eye(width)) / (1 + weight)


def _gradients(view: TrainableGraph, group: Sequence[Place], batch: Batch) -> Iterator[tuple[str, Doubles]]:
    """By place, one row for each position: (rows, outputs)."""
    names = {layer.node.outputs[0].name or "": place for place in group for layer in place.layers}
    values = view(feed_tensors(batch, view.device), taps=names)
    outputs = of_samples({name: values[name] for name in view.outputs}, batch)
    taps = {name: values[name] for name in names if values[name].requires_grad}
    noise = OutputNoise().of_outputs(outputs, batch)
    grads = torch.autograd.grad(noise, list(taps.values()), allow_unused=True)
    for name, grad in zip(taps, grads, strict=True):
        if grad is not None:
            yield names[name].name, _rows(grad, is_kernel=bool(names[name].geometry.kernel))


def _rows(grad: Tensor, *, is_kernel: bool) -> Doubles:
    last = grad.movedim(1, -1) if is_kernel else grad
    return np.asarray(last.reshape(-1, last.shape[-1]).double().cpu().numpy())


def _width(place: Place) -> int:
    return place.geometry.outputs
