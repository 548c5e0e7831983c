"""Operators that sum up axes: reductions, softmax, and the losses that ONNX knows."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from compression.graph.trainable.node import Node, Operator, Table, axis_of, integers


def _reduction(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    """A reduction over axes that are an attribute or, in newer opsets, an input; over all where none are given."""

    def operator(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
        given = node.attributes.get("axes", ()) if axes is None else integers(axes)
        if not given and node.attributes.get("noop_with_empty_axes", 0):
            return function(x.unsqueeze(-1), [x.ndim], False)
        over = sorted({axis_of(axis, x.ndim) for axis in given}) or list(range(x.ndim))
        return (
            function(x, over, bool(node.attributes.get("keepdims", 1)))
            if over
            else function(x[None], [0], False)
        )

    return operator


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.sum(x, axes, keepdim=keep, dtype=x.dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return torch.mean(x, axes, keepdim=keep)
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return torch.div(_sum(x, axes, keep), count, rounding_mode="trunc")


def _largest(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _extreme(x, axes, keep, torch.amax, low=True)


def _smallest(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _extreme(x, axes, keep, torch.amin, low=False)


def _extreme(x: Tensor, axes: list[int], keep: bool, function: Callable[..., Tensor], *, low: bool) -> Tensor:
    """Of nothing at all, the largest is the lowest number there is, and the other way round."""
    if x.numel():
        return function(x, axes, keepdim=keep)
    edge = _edge(x.dtype, low)
    shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    kept = torch.full(shape, edge, dtype=x.dtype, device=x.device)
    return kept if keep else kept.reshape([size for axis, size in enumerate(x.shape) if axis not in axes])


def _edge(dtype: torch.dtype, low: bool) -> float:
    if dtype.is_floating_point:
        return -torch.inf if low else torch.inf
    if dtype is torch.bool:
        return not low
    return torch.iinfo(dtype).min if low else torch.iinfo(dtype).max


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in reversed(axes):
        x = torch.prod(x, axis, keepdim=keep, dtype=x.dtype)
    return x


def _norm_1(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _sum(torch.abs(x), axes, keep)


def _norm_2(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    wide = x if x.is_floating_point() else x.double()
    norm: Tensor = torch.linalg.vector_norm(wide, 2, axes, keepdim=keep)
    return norm.to(x.dtype)


def _log_sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.log(_sum(x, axes, keep))


def _log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.logsumexp(x, axes, keepdim=keep)


def _sum_square(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _sum(x * x, axes, keep)


def arg_max(node: Node, x: Tensor) -> Tensor:
    return _position(node, x, torch.argmax)


def arg_min(node: Node, x: Tensor) -> Tensor:
    return _position(node, x, torch.argmin)


def _position(node: Node, x: Tensor, function: Callable[..., Tensor]) -> Tensor:
    """Of equals the first, or the last where `select_last_index` says so."""
    axis = axis_of(node.attributes.get("axis", 0), x.ndim)
    keep = bool(node.attributes.get("keepdims", 1))
    if not node.attributes.get("select_last_index", 0):
        return function(x, axis, keepdim=keep)
    return x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=keep)


def _normalised(function: Callable[..., Tensor]) -> Operator:
    """Softmax and its like. Before opset 13 all axes from `axis` on count as one."""

    def operator(node: Node, x: Tensor) -> Tensor:
        if node.opset >= 13:
            return function(x, axis_of(node.attributes.get("axis", -1), x.ndim))
        axis = axis_of(node.attributes.get("axis", 1), x.ndim)
        if axis == x.ndim - 1:
            return function(x, axis)
        return function(x.flatten(axis), axis).reshape(x.shape)

    return operator


def _hardmax(x: Tensor, axis: int) -> Tensor:
    first = torch.argmax(x, axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, first, 1)


def negative_log_likelihood(node: Node, x: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """x: log probabilities (N, C, d1, ...); target: classes (N, d1, ...)."""
    ignored = node.attributes.get("ignore_index", -100)
    reduction = node.attributes.get("reduction", "mean")
    return F.nll_loss(x, target.long(), weight, ignore_index=ignored, reduction=reduction)


def softmax_cross_entropy(
    node: Node, scores: Tensor, labels: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The loss and the log probabilities. scores: (N, C, d1, ...); labels: (N, d1, ...)."""
    logs = F.log_softmax(scores, 1)
    return negative_log_likelihood(node, logs, labels, weights), logs


REDUCTIONS: Table = {
    "ArgMax": arg_max,
    "ArgMin": arg_min,
    "Hardmax": _normalised(_hardmax),
    "LogSoftmax": _normalised(F.log_softmax),
    "NegativeLogLikelihoodLoss": negative_log_likelihood,
    "ReduceL1": _reduction(_norm_1),
    "ReduceL2": _reduction(_norm_2),
    "ReduceLogSum": _reduction(_log_sum),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
    "ReduceMax": _reduction(_largest),
    "ReduceMean": _reduction(_mean),
    "ReduceMin": _reduction(_smallest),
    "ReduceProd": _reduction(_product),
    "ReduceSum": _reduction(_sum),
    "ReduceSumSquare": _reduction(_sum_square),
    "Softmax": _normalised(F.softmax),
    "SoftmaxCrossEntropyLoss": softmax_cross_entropy,
}
