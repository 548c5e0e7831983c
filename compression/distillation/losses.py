"""What a student is held to: one function per loss, each for one batch.

Against a teacher each is zero where both agree. Shapes: outputs [N, ...] with classes on `axis`, or values; features
[N, C, positions...] or [N, C] (see `channels_first`). All are float tensors and all results are scalars, averaged
over the batch.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from compression.distillation.readings import Kind, Reading
from compression.evaluation.task import IGNORED_LABEL

TINY = 1e-12
SMALLEST_PROBABILITY = 1e-7
ANGLE_SAMPLES = 96
"""Angles are between three samples each: so many of a batch at most take part, of whose cube one number each."""


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


def soft_labels(student: Tensor, teacher: Tensor, *, temperature: float, axis: int = 1) -> Tensor:
    """T^2 * sum p log(p / q) with p, q = softmax(logits / T) of teacher and student, over the class axis.

    Hinton et al. 2015 (arXiv:1503.02531), section 2. The teacher's entropy is taken off their cross-entropy
    - sum p log q, so that agreement gives zero; gradients are the same. T^2 keeps gradients as large as those
    of hard labels.
    """
    log_q = functional.log_softmax(student / temperature, dim=axis)
    log_p = functional.log_softmax(teacher / temperature, dim=axis)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=axis).mean()


def soft_decisions(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """The same for logits that each decide yes or no: T^2 * KL between sigmoid(logits / T)."""
    p = torch.sigmoid(teacher / temperature)
    cross = functional.binary_cross_entropy_with_logits(student / temperature, p)
    own = functional.binary_cross_entropy_with_logits(teacher / temperature, p)
    return temperature**2 * (cross - own)


def soft_values(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of outputs that are values, relative to their variance over the batch.

    Ba and Caruana 2014 (arXiv:1312.6184), equation 1, who regress on logits.
    """
    return _relative(student, teacher)


def features(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of a hint and the student's, projected to its channels, relative to its variance.

    FitNets, Romero et al. 2015 (arXiv:1412.6550), equation 3. Where positions differ in number, the finer map
    is averaged to the coarser.
    """
    return _relative(*_same_positions(student, teacher))


def attention(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of the attention maps Q / ||Q||, where Q = sum over channels of A^2 at each position.

    Zagoruyko and Komodakis 2017 (arXiv:1612.03928), equation 2 with p = 2, without the root.
    """
    maps = _same_positions(*(value.square().sum(dim=1, keepdim=True) for value in (student, teacher)))
    one, other = (functional.normalize(value.flatten(1), dim=1) for value in maps)
    return (one - other).square().sum(dim=1).mean()


def distances(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss between all pairs' distances, each divided by the batch's mean distance.

    RKD-D, Park et al. 2019 (arXiv:1904.05068), equations 5 to 7.
    """
    return functional.huber_loss(_relative_distances(student), _relative_distances(teacher))


def angles(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss between the cosines of the angles that three samples span.

    RKD-A, Park et al. 2019 (arXiv:1904.05068), equations 8 and 9.
    """
    return functional.huber_loss(_cosines(student[:ANGLE_SAMPLES]), _cosines(teacher[:ANGLE_SAMPLES]))


def gradients(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of two gradients with respect to the input, each sample's of length one.

    Srinivas and Fleuret 2018 (arXiv:1803.00443), section 4.1: Jacobians are matched in direction, for the
    output that the teacher holds for right.
    """
    one, other = (functional.normalize(value.flatten(1), dim=1, eps=TINY) for value in (student, teacher))
    return (one - other).square().sum(dim=1).mean()


def channels_first(value: Tensor, axis: int) -> Tensor:
    """Features with their channels on axis 1, whatever axis they had."""
    return value if value.ndim < 3 else value.movedim(axis, 1)


def input_gradient(score: Tensor, inputs: Tensor, *, keep: bool) -> Tensor:
    """The gradient of the batch's summed score; with `keep` it can itself be differentiated."""
    (found,) = torch.autograd.grad(score.sum(), inputs, create_graph=keep)
    return found


def _relative(student: Tensor, teacher: Tensor) -> Tensor:
    spread = teacher.detach().var(unbiased=False).clamp_min(TINY)
    return functional.mse_loss(student, teacher) / spread


def _same_positions(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both on the coarser grid of the two, axis by axis."""
    if student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    size = tuple(min(pair) for pair in zip(student.shape[2:], teacher.shape[2:], strict=True))
    pool = (functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d, functional.adaptive_avg_pool3d)
    average = pool[len(size) - 1]
    return average(student, size), average(teacher, size)  # type: ignore[arg-type]


def _relative_distances(value: Tensor) -> Tensor:
    flat = value.flatten(1)
    apart = ~torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    found = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")[apart]
    return found / found.mean().clamp_min(TINY)


def _cosines(value: Tensor) -> Tensor:
    """[N, N, N]: entry i, j, k is the cosine of the angle at sample i between j and k."""
    flat = value.flatten(1)
    edges = functional.normalize(flat[None] - flat[:, None], dim=2, eps=TINY)
    return edges @ edges.transpose(1, 2)


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
