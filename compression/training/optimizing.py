"""The optimizer, and the learning rate of every step."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compression.training.settings import LearningMethod


def make_optimizer(weights: Mapping[str, nn.Parameter], settings: LearningMethod) -> torch.optim.Optimizer:
    """Of the weights that require gradients; only those of two axes or more decay."""
    learning = [weight for weight in weights.values() if weight.requires_grad]
    groups = [
        {"params": [w for w in learning if w.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [w for w in learning if w.ndim < 2], "weight_decay": 0.0},
    ]
    rate = settings.learning_rate
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=rate, betas=(settings.momentum, 0.999), fused=True)


def rate_at(share: float, settings: LearningMethod) -> float:
    """The learning rate once this share of all steps is done, in 0..1.

    Rises linearly in the warm-up (Goyal et al. 2017, arXiv:1706.02677, section 2.2), then stays, falls along half
    a cosine to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5 without restarts), or by steps.
    """
    if share < settings.warmup:
        return settings.learning_rate * share / settings.warmup
    fallen = (share - settings.warmup) / (1 - settings.warmup)
    factor = {
        "constant": 1.0,
        "cosine": (1 + math.cos(math.pi * min(fallen, 1.0))) / 2,
        # The small surplus keeps a third of the steps a third in spite of rounding.
        "step": settings.decay ** math.floor(fallen / settings.decay_every + 1e-9),
    }
    return settings.learning_rate * factor[settings.schedule]


def rate_of_step(step: int, steps: int, span: tuple[float, float], settings: LearningMethod) -> float:
    """The learning rate of step number `step` of `steps`, which go through that part of the schedule.

    The first step of a warm-up is already more than 0, and the one after it is at the top.
    """
    low, high = span
    before, after = (low + (high - low) * done / steps for done in (step, step + 1))
    if before < settings.warmup:
        return rate_at(min(after, settings.warmup), settings)
    return rate_at(before, settings)


def step_size(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> Tensor | float:
    """By what a steady gradient of the weight is multiplied in one step of the optimizer, after its first.

    SGD: r / (1 - momentum). Adam and AdamW: r / (sqrt(v) + eps) for each entry, where v is the second moment freed
    of its bias (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1).
    """
    group = next(g for g in optimizer.param_groups if any(weight is other for other in g["params"]))
    rate = float(group["lr"])
    if "betas" not in group:
        return rate / (1 - float(group["momentum"]))
    state = optimizer.state.get(weight, {})
    if "exp_avg_sq" not in state:
        return rate
    freed: Tensor = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
    return rate / (freed.sqrt() + float(group["eps"]))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimizer remembers, as tensors by `number of the weight:name`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}:{name}": value
        for index, entries in state.items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Gives back what `optimizer_tensors` told of an optimizer of the same kind and weights."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(":")
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
