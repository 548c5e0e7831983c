"""Normalizations: by statistics of the batch, of each sample, of groups of channels, of the last axes."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from compression.graph.trainable.node import Node, Table, axis_of


def batch_normalization(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> Tensor | tuple[Tensor, ...]:
    """With running statistics, or with the batch's when training or where the graph itself says so.

    Training moves the running statistics in place, as torch does: with the unbiased variance. A batch with a
    single value per channel has none of its own and is normalized by the running ones.
    """
    if node.opset < 9 and not node.attributes.get("spatial", 1):
        return _without_spatial(node, x, scale, bias, mean, var)
    mean, var, scale, bias = (_beside(item, x) for item in (mean, var, scale, bias))
    if _says_training(node):
        return _with_statistics(node, x, scale, bias, mean, var)
    by_batch = node.training and x.numel() > x.shape[1] and not (mean.requires_grad or var.requires_grad)
    momentum = 1 - node.attributes.get("momentum", 0.9)
    return F.batch_norm(x, mean, var, scale, bias, by_batch, momentum, node.attributes.get("epsilon", 1e-5))


def _beside(item: Tensor, x: Tensor) -> Tensor:
    """Statistics of another precision than the data, of which the lower half stays as mixed precision has it."""
    return item.to(x.dtype) if torch.float64 in (item.dtype, x.dtype) else item


def _without_spatial(node: Node, x: Tensor, *settings: Tensor) -> Tensor | tuple[Tensor, ...]:
    """Before opset 9: every entry of a sample with statistics of its own."""
    over_all = replace(node, attributes={**node.attributes, "spatial": 1})
    y = batch_normalization(over_all, x.flatten(1), *(item.flatten() for item in settings))
    return y.reshape(x.shape) if isinstance(y, Tensor) else (y[0].reshape(x.shape), *y[1:])


def _says_training(node: Node) -> bool:
    """Since opset 14 an attribute, before that the number of outputs."""
    if node.opset >= 14:
        return bool(node.attributes.get("training_mode", 0))
    return node.outputs > 1 and not node.attributes.get("is_test", 0)


def _with_statistics(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> Tensor | tuple[Tensor, ...]:
    """By the batch's statistics, and what the running ones become, as outputs."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    kept = node.attributes.get("momentum", 0.9)
    batch_var, batch_mean = torch.var_mean(x, axes, correction=0)
    y = F.batch_norm(x, None, None, scale, bias, True, 0.0, node.attributes.get("epsilon", 1e-5))
    running = (mean * kept + batch_mean * (1 - kept), var * kept + batch_var * (1 - kept))
    every = (y, *running) if node.opset >= 14 else (y, *running, batch_mean, batch_var)
    return y if node.outputs == 1 else every[: node.outputs]


def instance_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return torch.group_norm(x, x.shape[1], scale, bias, node.attributes.get("epsilon", 1e-5))


def group_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Scale and bias are one per group before opset 21, one per channel since."""
    groups = node.attributes["num_groups"]
    if node.opset < 21:
        per_group = x.shape[1] // groups
        scale, bias = scale.repeat_interleave(per_group), bias.repeat_interleave(per_group)
    return torch.group_norm(x, groups, scale, bias, node.attributes.get("epsilon", 1e-5))


def group_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """onnxruntime's, with channels last unless it says otherwise, and SiLU behind it where asked for."""
    last = node.attributes.get("channels_last", 1)
    x = x.movedim(-1, 1) if last else x
    y = torch.group_norm(x, node.attributes["groups"], scale, bias, node.attributes.get("epsilon", 1e-5))
    y = F.silu(y) if node.attributes.get("activation", 0) else y
    return y.movedim(1, -1) if last else y


def skip_group_norm(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor, skip: Tensor, added: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    skip = skip if skip.ndim == x.ndim else skip.reshape(skip.shape[0], 1, 1, skip.shape[-1])
    total = x + skip if added is None else x + skip + added
    y = group_norm(node, total, scale, bias)
    return y if node.outputs == 1 else (y, total)


def layer_normalization(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None
) -> Tensor | tuple[Tensor, ...]:
    """Over the axes from `axis` on; also gives the mean and 1 / standard deviation where asked for."""
    first, epsilon = axis_of(node.attributes.get("axis", -1), x.ndim), node.attributes.get("epsilon", 1e-5)
    shape = x.shape[first:]
    if scale.shape == shape and (bias is None or bias.shape == shape):
        y = F.layer_norm(x, shape, scale, bias, epsilon)
    else:
        y = F.layer_norm(x, shape, None, None, epsilon) * scale
        y = y if bias is None else y + bias
    if node.outputs == 1:
        return y
    var, mean = torch.var_mean(x, list(range(first, x.ndim)), correction=0, keepdim=True)
    return (y, mean, torch.rsqrt(var + epsilon))[: node.outputs]


def rms_normalization(node: Node, x: Tensor, scale: Tensor) -> Tensor | tuple[Tensor, ...]:
    """x / sqrt(mean(x^2) + epsilon) * scale over the axes from `axis` on (Zhang & Sennrich 2019)."""
    axes = list(range(axis_of(node.attributes.get("axis", -1), x.ndim), x.ndim))
    inverse = torch.rsqrt(x.square().mean(axes, keepdim=True) + node.attributes.get("epsilon", 1e-5))
    y = x * inverse * scale
    return y if node.outputs == 1 else (y, inverse)


def skip_layer_normalization(
    node: Node,
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    added: Tensor | None = None,
) -> Tensor | tuple[Tensor | None, ...]:
    """onnxruntime's sum of two inputs and a bias, normalized; the sum itself is the fourth output."""
    total = x + skip if added is None else x + skip + added
    y = layer_normalization(_with_epsilon(node, 3), total, scale, bias)
    return y[0] if node.outputs == 1 else (*y, total)[: node.outputs]


def skip_rms_normalization(
    node: Node, x: Tensor, skip: Tensor, scale: Tensor, added: Tensor | None = None
) -> Tensor | tuple[Tensor | None, ...]:
    total = x + skip if added is None else x + skip + added
    y, inverse = rms_normalization(_with_epsilon(node, 2), total, scale)
    return y if node.outputs == 1 else (y, None, inverse, total)[: node.outputs]


def embed_layer_normalization(
    node: Node,
    words: Tensor,
    segments: Tensor | None,
    word_table: Tensor,
    position_table: Tensor,
    segment_table: Tensor | None,
    scale: Tensor,
    bias: Tensor,
    mask: Tensor | None = None,
    positions: Tensor | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """onnxruntime's sum of embeddings, normalized; the second output counts each sample's unmasked tokens."""
    total = F.embedding(words, word_table)
    total = total + (position_table[: words.shape[1]] if positions is None else position_table[positions])
    if segments is not None and segment_table is not None:
        total = total + F.embedding(segments, segment_table)
    y = F.layer_norm(total, scale.shape, scale, bias, node.attributes.get("epsilon", 1e-12))
    counts = words.new_zeros(words.shape[0]) if mask is None else mask.sum(1)
    return y if node.outputs == 1 else (y, counts.to(torch.int32), total)[: node.outputs]


def _with_epsilon(node: Node, outputs: int) -> Node:
    """The node inside a fused one, whose epsilon has another default."""
    return replace(node, outputs=outputs, attributes={"epsilon": node.attributes.get("epsilon", 1e-12)})


def lp_normalization(node: Node, x: Tensor) -> Tensor:
    """x divided by its 1- or 2-norm along an axis; zeros stay zeros."""
    axis, p = node.attributes.get("axis", -1), node.attributes.get("p", 2)
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return torch.where(norm == 0, 0, x / torch.where(norm == 0, 1, norm))


def mean_variance_normalization(node: Node, x: Tensor) -> Tensor:
    """(x - mean) / (standard deviation + 1e-9), by the formula of the operator's function body."""
    axes = list(node.attributes.get("axes", (0, 2, 3)))
    var, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - mean) / (torch.sqrt(var.clamp(min=1e-24)) + 1e-9)


def local_response_normalization(node: Node, x: Tensor) -> Tensor:
    """x / (bias + alpha / size * the sum of squares of `size` channels around)^beta (Krizhevsky et al. 2012)."""
    size = node.attributes["size"]
    squares = x.square().movedim(1, -1)
    near = F.pad(squares, ((size - 1) // 2, size // 2)).unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    alpha, beta = node.attributes.get("alpha", 1e-4), node.attributes.get("beta", 0.75)
    spread: Tensor = (node.attributes.get("bias", 1.0) + alpha / size * near) ** beta
    return x / spread


NORMALIZATIONS: Table = {
    "BatchNormalization": batch_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "LRN": local_response_normalization,
    "LayerNormalization": layer_normalization,
    "LpNormalization": lp_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
    "RMSNormalization": rms_normalization,
    "SimplifiedLayerNormalization": rms_normalization,
    "com.microsoft::EmbedLayerNormalization": embed_layer_normalization,
    "com.microsoft::GroupNorm": group_norm,
    "com.microsoft::LayerNormalization": layer_normalization,
    "com.microsoft::SimplifiedLayerNormalization": rms_normalization,
    "com.microsoft::SkipGroupNorm": skip_group_norm,
    "com.microsoft::SkipLayerNormalization": skip_layer_normalization,
    "com.microsoft::SkipSimplifiedLayerNormalization": skip_rms_normalization,
}
