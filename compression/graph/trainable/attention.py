"""Attention: softmax(Q K^T) V (Vaswani et al. 2017) with its masks and caches, and rotary embeddings."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from compression.graph.trainable.attention_fused import FUSED_ATTENTION
from compression.graph.trainable.attention_linear import linear_attention
from compression.graph.trainable.heads import attend, banned, join_heads, rotate, split_heads
from compression.graph.trainable.node import Node, Table


def attention(
    node: Node,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_k: Tensor | None = None,
    past_v: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """Inputs with three axes hold their heads in the last; `lengths` says how much of a cache is in use."""
    flat = q.ndim == 3
    if flat:
        q = split_heads(q, node.attributes["q_num_heads"])
        k, v = (split_heads(item, node.attributes["kv_num_heads"]) for item in (k, v))
    if past_k is not None and past_v is not None:
        k, v = torch.cat((past_k, k), 2), torch.cat((past_v, v), 2)
    offset = past_k.shape[2] if past_k is not None else 0
    before = torch.tensor(offset) if lengths is None else lengths.reshape(-1, 1, 1, 1) - q.shape[2]
    y, scores = attend(
        q,
        k,
        v,
        _bias(node, q, k, mask, before, lengths),
        scale=node.attributes.get("scale") or 1 / math.sqrt(q.shape[-1]),
        softcap=node.attributes.get("softcap", 0.0),
        stage=node.attributes.get("qk_matmul_output_mode", 0) if node.outputs > 3 else None,
    )
    y = join_heads(y) if flat else y
    return y if node.outputs == 1 else tuple(i for i in (y, k, v, scores) if i is not None)[: node.outputs]


def _bias(
    node: Node, q: Tensor, k: Tensor, mask: Tensor | None, before: Tensor, lengths: Tensor | None
) -> Tensor | None:
    """What is added to the scores; `before` counts the keys in front of the first query."""
    total = k.shape[2]
    bias = None if mask is None else _padded_mask(mask, total, q)
    right = node.attributes.get("right_window_size", -1)
    right = 0 if node.attributes.get("is_causal", 0) else right
    left = node.attributes.get("left_window_size", -1)
    ban = banned(q, total, before.to(q.device), left=left, right=right)
    if lengths is not None:
        beyond = torch.arange(total, device=q.device) >= lengths.to(q.device).reshape(-1, 1, 1, 1)
        ban = beyond if ban is None else ban | beyond
    if ban is None:
        return bias
    return torch.zeros_like(ban, dtype=q.dtype).masked_fill(ban, -torch.inf) + (0 if bias is None else bias)


def _padded_mask(mask: Tensor, total: int, q: Tensor) -> Tensor:
    """The mask as what is added to the scores; keys that it does not reach are masked."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -torch.inf)
    return F.pad(mask, (0, total - mask.shape[-1]), value=-torch.inf)


def flex_attention(node: Node, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention whose scores and probabilities go through subgraphs."""
    repeated = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeated, 1), v.repeat_interleave(repeated, 1)
    scores = q @ k.transpose(-1, -2) * (node.attributes.get("scale") or 1 / math.sqrt(q.shape[-1]))
    if "score_mod" in node.attributes:
        (scores,) = node.attributes["score_mod"](scores)
    shares = torch.softmax(scores, -1)
    if "prob_mod" in node.attributes:
        (shares,) = node.attributes["prob_mod"](shares)
    return shares @ v


def rotary_embedding(
    node: Node, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None
) -> Tensor:
    """Rotates pairs of entries by angles that depend on the position (Su et al. 2021)."""
    if positions is not None:
        cos, sin = cos[positions], sin[positions]
    heads = split_heads(x, node.attributes["num_heads"]) if x.ndim == 3 else x
    y = rotate(
        heads,
        cos.unsqueeze(1),
        sin.unsqueeze(1),
        interleaved=bool(node.attributes.get("interleaved", 0)),
        size=node.attributes.get("rotary_embedding_dim", 0),
    )
    return join_heads(y) if x.ndim == 3 else y


ATTENTION: Table = {
    "Attention": attention,
    "LinearAttention": linear_attention,
    "RotaryEmbedding": rotary_embedding,
    "ai.onnx.preview::FlexAttention": flex_attention,
    **FUSED_ATTENTION,
}
