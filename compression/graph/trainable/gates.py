"""Activations that go by name in an attribute, as recurrent and fused operators have them."""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from compression.errors import NotTrainable

Activation = Callable[[Tensor], Tensor]

PLAIN: dict[str, Activation] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softsign": F.softsign,
    "softplus": F.softplus,
}
ALPHA: dict[str, tuple[float, Callable[[Tensor, float], Tensor]]] = {
    "leakyrelu": (0.01, F.leaky_relu),
    "thresholdedrelu": (1.0, lambda x, alpha: torch.where(x > alpha, x, 0)),
    "elu": (1.0, F.elu),
}
ALPHA_BETA: dict[str, tuple[float, float, Callable[[Tensor, float, float], Tensor]]] = {
    "affine": (1.0, 0.0, lambda x, alpha, beta: alpha * x + beta),
    "scaledtanh": (1.0, 1.0, lambda x, alpha, beta: alpha * torch.tanh(beta * x)),
    "hardsigmoid": (0.2, 0.5, lambda x, alpha, beta: torch.clamp(alpha * x + beta, 0, 1)),
    "clip": (-torch.inf, torch.inf, torch.clamp),
}


def activation(name: str, *settings: float) -> Activation:
    """An activation by name in any case, with its alpha and beta where it has them.

    Raises:
        NotTrainable: there is no such activation.
    """
    return activations([name], list(settings[:1]), list(settings[1:]))[0]


def activations(names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]) -> list[Activation]:
    """Several, that take their alphas and betas in order; those left without have the defaults.

    Raises:
        NotTrainable: there is no such activation.
    """
    left, right = iter(alphas), iter(betas)
    found: list[Activation] = []
    for name in names:
        key = name.lower()
        if key in PLAIN:
            found.append(PLAIN[key])
        elif key in ALPHA:
            found.append(_with_alpha(key, left))
        elif key in ALPHA_BETA:
            found.append(_with_both(key, left, right))
        else:
            raise NotTrainable(f"the activation {name!r} is not known")
    return found


def _with_alpha(key: str, alphas: Iterator[float]) -> Activation:
    default, function = ALPHA[key]
    alpha = next(alphas, default)
    return lambda x: function(x, alpha)


def _with_both(key: str, alphas: Iterator[float], betas: Iterator[float]) -> Activation:
    default_alpha, default_beta, function = ALPHA_BETA[key]
    alpha, beta = next(alphas, default_alpha), next(betas, default_beta)
    return lambda x: function(x, alpha, beta)
