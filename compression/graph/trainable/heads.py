"""Attention over heads, as all its operators share it: tensors are (batch, head, position, entry)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(batch, position, head * entry) as (batch, head, position, entry)."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    *,
    scale: float,
    softcap: float = 0.0,
    sink: Tensor | None = None,
    stage: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """softmax(softcap(scale Q K^T) + bias) V; each head of k and v serves as many of q's as there are.

    Args:
        q, k, v: (batch, head, position, entry).
        bias: fits (batch, head, query, key); a query whose keys are all at -inf gives zeros.
        scale: of the scores.
        softcap: scores are kept below it by tanh; 0 for no cap.
        sink: per head, what one more key that has no value scores.
        stage: which scores to give too: 0 plain, 1 capped, 2 with bias, 3 after softmax.
    """
    repeated = q.shape[1] // k.shape[1]
    if repeated > 1:
        k, v = k.repeat_interleave(repeated, 1), v.repeat_interleave(repeated, 1)
    empty = None if bias is None else (bias == -torch.inf).all(-1, keepdim=True)
    safe = bias if bias is None or empty is None else bias.masked_fill(empty, 0)
    if stage is None and not softcap and sink is None:
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=safe, scale=scale)
        return (y if empty is None else y.masked_fill(empty, 0)), None
    plain = (q * scale) @ k.transpose(-1, -2)
    capped = softcap * torch.tanh(plain / softcap) if softcap else plain
    shares = _shares(capped if safe is None else capped + safe, sink)
    shares = shares if empty is None else shares.masked_fill(empty, 0)
    biased = capped if bias is None else capped + bias
    return shares @ v, None if stage is None else (plain, capped, biased, shares)[stage]


def _shares(scores: Tensor, sink: Tensor | None) -> Tensor:
    if sink is None:
        return torch.softmax(scores, -1)
    extra = sink.reshape(-1, 1, 1).expand(*scores.shape[:-1], 1).to(scores.dtype)
    return torch.softmax(torch.cat((scores, extra), -1), -1)[..., :-1]


def banned(q: Tensor, total: int, before: Tensor, *, left: int = -1, right: int = -1) -> Tensor | None:
    """Which of `total` keys a query may not see: those further to the left or right of it; -1 for any distance.

    `before` is how many keys lie in front of the first query, alone or as (batch, 1, 1, 1).
    """
    if left < 0 and right < 0:
        return None
    queries = torch.arange(q.shape[2], device=q.device).unsqueeze(-1) + before
    distance = torch.arange(total, device=q.device) - queries
    ban = torch.zeros_like(distance, dtype=torch.bool)
    ban = ban if right < 0 else ban | (distance > right)
    return ban if left < 0 else ban | (-distance > left)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool, size: int = 0) -> Tensor:
    """The first `size` entries (all where 0) rotated in pairs: of neighbours, or of the two halves.

    cos and sin fit (batch, head, position, size / 2).
    """
    size = size or x.shape[-1]
    turning, rest = x[..., :size], x[..., size:]
    if interleaved:
        a, b = turning[..., 0::2], turning[..., 1::2]
    else:
        a, b = turning.chunk(2, -1)
    pair = (cos * a - sin * b, sin * a + cos * b)
    turned = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat((turned, rest), -1) if rest.shape[-1] else turned
