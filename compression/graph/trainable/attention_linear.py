"""Linear attention: a state per head that every position adds to and reads from."""

import math

import torch
from torch import Tensor

from compression.graph.trainable.heads import join_heads, split_heads
from compression.graph.trainable.node import Node


def linear_attention(
    node: Node,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    past: Tensor | None = None,
    decay: Tensor | None = None,
    beta: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """The recurrences `linear`, `gated`, `delta` and `gated_delta`, position by position.

    Sources: Katharopoulos et al. 2020 (linear), Yang et al. 2023 (gated), Schlag et al. 2021 (delta) and Yang
    et al. 2024 (gated delta).
    """
    heads = node.attributes["kv_num_heads"]
    q = split_heads(q, node.attributes["q_num_heads"])
    k, v = split_heads(k, heads), split_heads(v, heads)
    rule = node.attributes.get("update_rule", "gated_delta")
    gate = split_heads(decay, heads).exp() if decay is not None and "gated" in rule else None
    rate = split_heads(beta, beta.shape[-1]) if beta is not None and "delta" in rule else None
    state = k.new_zeros(*k.shape[:2], k.shape[3], v.shape[3]) if past is None else past
    scale = node.attributes.get("scale", 0.0) or 1 / math.sqrt(q.shape[-1])
    results = []
    for t in range(q.shape[2]):
        if gate is not None:
            state = gate[:, :, t].unsqueeze(-1) * state
        added = v[:, :, t]
        if rate is not None:
            added = rate[:, :, t] * (added - torch.einsum("bhkv,bhk->bhv", state, k[:, :, t]))
        state = state + k[:, :, t].unsqueeze(-1) * added.unsqueeze(-2)
        read = state.repeat_interleave(q.shape[1] // heads, 1)
        results.append(scale * torch.einsum("bhkv,bhk->bhv", read, q[:, :, t]))
    return (join_heads(torch.stack(results, 2)), state)[: node.outputs]
