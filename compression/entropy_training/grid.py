"""Weights that train between the points of a grid and compute on them, under a penalty on the points' bits."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from compression.entropy_training.code import Code, fitted
from compression.graph.trainable import TrainableGraph
from compression.training.keeping import State

LATENT, FITTED, STEPS = "latent/", "fitted/", "steps"
REFIT = 8
"""Optimizer steps for which one code serves."""


class OnGrid:
    """A constraint: each weight computes as a whole number of its tensor's steps.

    What the optimizer moves is the weight before rounding, the latent; the gradient at the rounded weight passes
    straight through to it, and the gradient of rate * bits joins it (Oktay et al. 2020, with the steps fixed and
    rounding in place of noise).

    Args:
        steps: by initializer name.
        rate: what a bit costs, in units of the loss.
        state: for checkpoints; what lies there already is where it goes on.
    """

    def __init__(
        self, view: TrainableGraph, steps: Mapping[str, float], *, rate: float, state: State
    ) -> None:
        self._steps, self._rate, self._state = dict(steps), rate, state
        weights = view.weights
        self._codes = {name: fitted(numbers.to(view.device)) for name, numbers in state.under(FITTED).items()}
        with torch.no_grad():
            for name, latent in state.under(LATENT).items():
                weights[name].copy_(latent)

    @torch.no_grad()
    def apply(self, view: TrainableGraph) -> None:
        weights = view.weights
        for name, step in self._steps.items():
            weight = weights[name]
            self._state.tensors[LATENT + name] = weight.detach().clone()
            # The sum turns -0 into 0.
            weight.div_(step).round_().mul_(step).add_(0.0)

    @torch.no_grad()
    def shape_gradients(self, view: TrainableGraph) -> None:
        weights, plain, tensors = view.weights, self._state.plain, self._state.tensors
        refit = plain.setdefault(STEPS, 0) % REFIT == 0
        plain[STEPS] += 1
        for name, step in self._steps.items():
            weight, latent = weights[name], tensors[LATENT + name].to(view.device)
            places = latent / step
            if refit:
                tensors[FITTED + name] = places.round()
                self._codes[name] = fitted(tensors[FITTED + name])
            if weight.grad is not None:
                weight.grad.add_(self._codes[name].slope(places), alpha=self._rate / step)
            weight.copy_(latent)

    def codes(self, view: TrainableGraph) -> dict[str, tuple[Code, Tensor]]:
        """By name the code that fits the numbers, and the numbers."""
        numbers = {name: (view.weights[name].detach() / step).round() for name, step in self._steps.items()}
        return {name: (fitted(found), found) for name, found in numbers.items()}


def step_of(weight: Tensor, share: float) -> float | None:
    """The step that is this share of the root mean square of the weights that are not zero; None where all are."""
    there = weight.detach()[weight.detach() != 0].double()
    return float(np.float32(share * float(there.square().mean().sqrt()))) if there.numel() else None
