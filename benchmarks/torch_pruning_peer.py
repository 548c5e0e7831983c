"""Torch-Pruning put to a torch module: half of the channels by its own pruner, as its documentation calls it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

PROJECTIONS = {"query": 1, "key": 2, "value": 2, "q_proj": 1, "k_proj": 2, "v_proj": 2}
"""Names of the layers that make heads, and whether the keys' number of heads counts."""


def halve(
    network: nn.Module, example: Tensor, *, criterion: str, loss: Callable[[], Tensor] | None = None
) -> None:
    """Cuts half of every group, attention by whole heads, in place; the classifier's outputs stay.

    `loss` is differentiated for the criterion `taylor`.
    """
    import torch_pruning as tp

    network.eval()
    pruner = tp.pruner.BasePruner(
        network,
        example,
        importance=_importance(criterion),
        pruning_ratio=0.5,
        ignored_layers=_last(network),
        num_heads=_heads(network),
        prune_num_heads=True,
        prune_head_dims=False,
        head_pruning_ratio=0.5,
        output_transform=lambda output: output,
    )
    if loss is not None:
        network.zero_grad()
        torch.autograd.backward(loss())
    pruner.step()
    with torch.no_grad():
        network(example)


def _importance(criterion: str) -> Any:
    import torch_pruning as tp

    if criterion == "taylor":
        return tp.importance.GroupTaylorImportance()
    return tp.importance.GroupMagnitudeImportance(p=1)


def _last(network: nn.Module) -> list[nn.Module]:
    """The layer whose outputs are the model's."""
    return [[part for part in network.modules() if isinstance(part, nn.Linear)][-1]]


def _heads(network: nn.Module) -> dict[nn.Module, int]:
    """By layer that makes heads their number, which Torch-Pruning has to be told."""
    found: dict[nn.Module, int] = {}
    for owner in network.modules():
        for name, part in owner.named_children():
            if name in PROJECTIONS and isinstance(part, nn.Linear):
                found[part] = part.out_features // _head_size(owner)
    return found


def _head_size(owner: Any) -> int:
    size = getattr(owner, "head_dim", None) or owner.attention_head_size
    return int(size)
