"""Attention as onnxruntime's own operators have it, with projections, padding masks and caches built in."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from compression.errors import NotTrainable
from compression.graph.trainable.heads import attend, banned, join_heads, rotate, split_heads
from compression.graph.trainable.node import Node, Table

MASKED = -10000.0


def fused_attention(
    node: Node,
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    past: Tensor | None = None,
    added: Tensor | None = None,
    past_length: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Self-attention with the projection of the input; `past` and `present` hold keys and values together."""
    _refuse(node, past_length, "do_rotary", "past_present_share_buffer")
    sizes = list(node.attributes.get("qkv_hidden_sizes") or [w.shape[1] // 3] * 3)
    projected = torch.split(F.linear(x, w.t(), bias), sizes, -1)
    q, k, v = (split_heads(item, node.attributes["num_heads"]) for item in projected)
    if past is not None:
        k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
    y = join_heads(_attend(node, q, k, v, mask, added)[0])
    return y if node.outputs == 1 else (y, torch.stack((k, v)))


def multi_head_attention(
    node: Node,
    q: Tensor,
    k: Tensor | None = None,
    v: Tensor | None = None,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    added: Tensor | None = None,
    past_k: Tensor | None = None,
    past_v: Tensor | None = None,
    past_length: Tensor | None = None,
    indirection: Tensor | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """Queries, keys and values apart, or packed behind the head's axis; keys may come with heads split."""
    _refuse(node, past_length if past_length is not None else indirection)
    heads = node.attributes["num_heads"]
    parts = [item if item.ndim == 4 else split_heads(item, heads) for item in _unpacked(q, k, v)]
    if bias is not None:
        sizes = [heads * item.shape[-1] for item in parts]
        whole = zip(parts, torch.split(bias, sizes), strict=True)
        parts = [item + own.reshape(heads, 1, -1) for item, own in whole]
    query, key, value = parts
    if past_k is not None and past_v is not None:
        key, value = torch.cat((past_k, key), 2), torch.cat((past_v, value), 2)
    y, scores = _attend(node, query, key, value, mask, added)
    every = (join_heads(y), key, value, scores)
    return every[0] if node.outputs == 1 else tuple(i for i in every if i is not None)[: node.outputs]


def _unpacked(q: Tensor, k: Tensor | None, v: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Packed ones are (batch, position, head, 2 or 3, entry)."""
    if k is None:
        first, second, third = (item.transpose(1, 2) for item in q.unbind(3))
        return first, second, third
    if v is None:
        second, third = (item.transpose(1, 2) for item in k.unbind(3))
        return q, second, third
    return q, k, v


def _attend(
    node: Node, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, added: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """With padding masked by a large negative number, and the future by -inf where asked for."""
    bias = added
    if mask is not None:
        hidden = _hidden(mask, q, k.shape[2]).to(q.dtype) * node.attributes.get("mask_filter_value", MASKED)
        bias = hidden if bias is None else bias + hidden
    if node.attributes.get("unidirectional", 0):
        ban = banned(q, k.shape[2], torch.tensor(k.shape[2] - q.shape[2], device=q.device), right=0)
        future = q.new_zeros(q.shape[2], k.shape[2])
        future = future if ban is None else future.masked_fill(ban, -torch.inf)
        bias = future if bias is None else bias + future
    scale = node.attributes.get("scale") or 1 / math.sqrt(q.shape[-1])
    return attend(q, k, v, bias, scale=scale, stage=3 if node.outputs > 3 else None)


def _hidden(mask: Tensor, q: Tensor, total: int) -> Tensor:
    """Which keys are padding: as (batch, head, query, key) or what fits it."""
    batch = q.shape[0]
    if mask.ndim == 1:
        places = torch.arange(total, device=mask.device)
        hidden = places >= mask[:batch].unsqueeze(-1)
        if mask.shape[0] == 2 * batch:
            hidden = hidden | (places < mask[batch:].unsqueeze(-1))
        elif mask.shape[0] != batch:
            raise NotTrainable("attention masks that count sequences cumulatively are not known")
        return hidden.reshape(batch, 1, 1, total)
    if mask.ndim == 4:
        return mask[:, :, total - q.shape[2] : total, :total] == 0
    return (mask == 0).unsqueeze(1) if mask.ndim == 3 else (mask == 0)[:, None, None]


def _refuse(node: Node, shared: Tensor | None, *attributes: str) -> None:
    if shared is not None or any(node.attributes.get(name, 0) for name in attributes):
        raise NotTrainable(f"{node.op_type} with a shared cache or built-in rotation is not known")


def group_query_attention(
    node: Node,
    q: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    past_k: Tensor | None,
    past_v: Tensor | None,
    last: Tensor,
    total: Tensor,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    positions: Tensor | None = None,
    added: Tensor | None = None,
    sink: Tensor | None = None,
    *unknown: Tensor | None,
) -> Tensor | tuple[Tensor, ...]:
    """Causal attention with a cache that grows by what comes in; `last` is each sample's last position."""
    if any(item is not None for item in unknown) or node.attributes.get("sliding_window_cache", 0):
        raise NotTrainable("grouped-query attention with quantized, windowed or ragged caches is not known")
    if past_k is not None and past_k.shape[2] and int(last.min()) != int(last.max()):
        raise NotTrainable("grouped-query attention with caches of several lengths is not known")
    query, key, value = _grouped(node, q, k, v)
    before = 0 if past_k is None else past_k.shape[2]
    if before and int(total) != before + query.shape[2]:
        raise NotTrainable("grouped-query attention in a cache of fixed size is not known")
    if node.attributes.get("do_rotary", 0) and cos is not None and sin is not None:
        places = torch.arange(query.shape[2], device=q.device) + before if positions is None else positions
        angles = (
            (cos[places], sin[places]) if places.ndim == 1 else (cos[places][:, None], sin[places][:, None])
        )
        paired = bool(node.attributes.get("rotary_interleaved", 0))
        size = 2 * cos.shape[-1]
        query, key = (rotate(item, *angles, interleaved=paired, size=size) for item in (query, key))
    if past_k is not None and past_v is not None:
        key, value = torch.cat((past_k, key), 2), torch.cat((past_v, value), 2)
    y = join_heads(_attend_grouped(node, query, key, value, before, added, sink))
    return y if node.outputs == 1 else (y, key, value)[: node.outputs]


def _grouped(node: Node, q: Tensor, k: Tensor | None, v: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    heads, shared = node.attributes["num_heads"], node.attributes["kv_num_heads"]
    if k is None or v is None:
        query, key, value = torch.split(split_heads(q, heads + 2 * shared), [heads, shared, shared], 1)
        return query, key, value
    return split_heads(q, heads), split_heads(k, shared), split_heads(v, shared)


def _attend_grouped(
    node: Node, q: Tensor, k: Tensor, v: Tensor, before: int, added: Tensor | None, sink: Tensor | None
) -> Tensor:
    """A local window counts the query's own position."""
    left = node.attributes.get("local_window_size", -1) - 1
    right = 0 if node.attributes.get("causal", 1) else -1
    ban = banned(q, k.shape[2], torch.tensor(before, device=q.device), left=max(left, -1), right=right)
    bias = added
    if ban is not None:
        future = torch.zeros_like(ban, dtype=q.dtype).masked_fill(ban, -torch.inf)
        bias = future if added is None else future + added
    if node.attributes.get("smooth_softmax", 0) and sink is None:
        sink = q.new_zeros(q.shape[1])
    scale = node.attributes.get("scale") or 1 / math.sqrt(q.shape[-1])
    return attend(q, k, v, bias, scale=scale, softcap=node.attributes.get("softcap", 0.0), sink=sink)[0]


def rotary_embedding(node: Node, x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Positions come second here; a single one is that of the first token."""
    size = node.attributes.get("rotary_embedding_dim", 0)
    heads = x
    if x.ndim == 3:
        heads = split_heads(x, node.attributes.get("num_heads", 0) or x.shape[2] // (2 * cos.shape[-1]))
    if positions.numel() == 1:
        positions = positions.reshape(1, 1) + torch.arange(heads.shape[2], device=positions.device)
    angles = (cos[positions].unsqueeze(1), sin[positions].unsqueeze(1))
    y = rotate(heads, *angles, interleaved=bool(node.attributes.get("interleaved", 0)), size=size)
    y = y * node.attributes.get("scale", 1.0)
    return join_heads(y) if x.ndim == 3 else y


FUSED_ATTENTION: Table = {
    "com.microsoft::Attention": fused_attention,
    "com.microsoft::GroupQueryAttention": group_query_attention,
    "com.microsoft::MultiHeadAttention": multi_head_attention,
    "com.microsoft::RotaryEmbedding": rotary_embedding,
}
