"""The loss on labels, by how the output that answers them is read."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from compression.distillation.readings import Kind, Reading
from compression.evaluation.task import IGNORED_LABEL

SMALLEST_PROBABILITY = 1e-7


def to_logits(output: Tensor, reading: Reading) -> Tensor:
    """Logits as they are; probabilities by their logarithm, or by log(p / (1 - p)) for decisions."""
    if not reading.probabilities:
        return output
    bounded = output.clamp(SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return bounded.log() if reading.kind == "classes" else torch.logit(bounded)


def hard_labels(logits: Tensor, labels: Tensor, reading: Reading, *, smoothing: float = 0.0) -> Tensor:
    """The loss of the kind: cross-entropy, binary cross-entropy, or mean squared error.

    Args:
        logits: [N, ...] with classes on the reading's axis; or of the labels' shape but for axes of size one.
        labels: class numbers, 0 or 1, or values. Those of -100 count for nothing, except as values.
        smoothing: of labels, 0 for none (Szegedy et al. 2016, arXiv:1512.00567, section 7).
    """
    return _LOSSES[reading.kind](logits, labels, reading, smoothing)


def _classes(logits: Tensor, labels: Tensor, reading: Reading, smoothing: float) -> Tensor:
    scores = logits.movedim(reading.axis, 1)
    return functional.cross_entropy(
        scores, labels.long(), ignore_index=IGNORED_LABEL, label_smoothing=smoothing
    )


def _decisions(logits: Tensor, labels: Tensor, reading: Reading, smoothing: float) -> Tensor:
    known = labels != IGNORED_LABEL
    wanted = labels.to(logits.dtype) * (1 - smoothing) + smoothing / 2
    scores = logits.reshape(labels.shape)
    return functional.binary_cross_entropy_with_logits(scores[known], wanted[known])


def _values(logits: Tensor, labels: Tensor, reading: Reading, smoothing: float) -> Tensor:
    return functional.mse_loss(logits.reshape(labels.shape), labels.to(logits.dtype))


_LOSSES: Mapping[Kind, Callable[[Tensor, Tensor, Reading, float], Tensor]] = {
    "classes": _classes,
    "decisions": _decisions,
    "values": _values,
}
