"""What to differentiate where nothing is trained: the loss on labels, or how much the outputs would move."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compression.errors import NotTrainable
from compression.graph.trainable import TrainableGraph, check_agreement
from compression.method import StepContext
from compression.training.batches import Batch, Batches
from compression.training.choosing import choose_objective
from compression.training.objectives import Objective, Outputs, outputs_of
from compression.training.settings import Loss

if TYPE_CHECKING:
    import onnx_ir as ir


class _Auto:
    """The loss that labels and outputs tell."""

    loss: Loss = "auto"
    label_smoothing: float = 0.0


class OutputNoise(Objective):
    """sum(r * y) / |y| over all float outputs y, with random signs r.

    The expected square of its gradient is that of the outputs' relative change, summed over all of them: the
    diagonal of J^T J, estimated as by Hutchinson (1990). A model's distance from its own outputs has no
    gradient, so that this stands in for a loss where there are no labels. The same signs for the same samples.
    """

    def loss(self, view: TrainableGraph, batch: Batch) -> Tensor:
        return self.of_outputs(outputs_of(view, batch), batch)

    def of_outputs(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Raises NotTrainable where no output has a gradient."""
        generator = torch.Generator().manual_seed(int(batch.rows[0]))
        parts = []
        for output in outputs.values():
            if isinstance(output, Tensor) and output.is_floating_point() and output.requires_grad:
                signs = torch.randint(0, 2, output.shape, generator=generator) * 2.0 - 1.0
                norm = torch.linalg.vector_norm(output.detach()).clamp(min=1e-12)
                parts.append((output * signs.to(output)).sum() / norm)
        if not parts:
            raise NotTrainable("no output of the model has a gradient")
        return torch.stack(parts).sum()


def sensing_objective(model: "ir.Model", batches: Batches, context: StepContext) -> tuple[Objective, str]:
    """The loss on labels where there are some, else `OutputNoise`; and a sentence that says so.

    Raises:
        NotApplicable: the labels fit no output.
    """
    if not batches.labelled:
        return OutputNoise(), "without labels: what counts is how far the model's own outputs would move"
    objective, _ = choose_objective(model, _Auto(), batches, context)
    return objective, "what counts is how much the loss on the labels would change"


def sense(model: "ir.Model", batches: Batches, context: StepContext) -> tuple[TrainableGraph, Objective, str]:
    """A view with statistics as they are, what to differentiate, and a sentence that says so.

    Raises:
        NotTrainable: the model cannot be differentiated.
        NotApplicable: the labels fit no output.
    """
    view = TrainableGraph(model)
    view.batch_norm = "frozen"
    check_agreement(view, model, next(batches.each(batches.training_rows)).feeds)
    view.to(context.device)
    objective, note = sensing_objective(model, batches, context)
    return view, objective, note
