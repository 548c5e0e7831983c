"""What keeps the codes of an autoencoder sparse: penalties on the activations of a batch of codes [rows, hidden]."""

import torch
from torch import Tensor

SMALLEST = 1e-6


def reconstruction_error(rows: Tensor, found: Tensor) -> Tensor:
    """Mean squared error."""
    return (rows - found).square().mean()


def l1(code: Tensor) -> Tensor:
    """The mean magnitude of an activation (Ranzato et al. 2007; Lee et al. 2007)."""
    return code.abs().mean()


def kl(code: Tensor, target: float) -> Tensor:
    """Mean over units of KL(rho || rho_j), where rho_j is the mean activation of unit j over the batch.

    Ng, CS294A lecture notes on sparse autoencoders, section 3: rho log(rho / rho_j) + (1 - rho) log((1 - rho)
    / (1 - rho_j)). The notes sum over units; the mean makes the weight independent of how many there are.
    """
    mean = code.mean(dim=0).clamp(SMALLEST, 1 - SMALLEST)
    rho = torch.full_like(mean, target)
    return (rho * (rho / mean).log() + (1 - rho) * ((1 - rho) / (1 - mean)).log()).mean()
