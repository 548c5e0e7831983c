"""AdaRound: whether each weight is rounded up or down, learned (Nagel et al. 2020, arXiv:2004.10568).

The weight is w~ = s * clip(floor(w / s) + h(V), -q, q) with the rectified sigmoid h(V) = clip(sigmoid(V) (zeta - gamma)
+ gamma, 0, 1), zeta = 1.1, gamma = -0.1 (equations 22, 23). V is learned by Adam on
||f_a(W x) - f_a(W~ x~)||^2 + lambda sum(1 - |2 h(V) - 1|^beta) (equations 24, 25), with x~ the layer's quantized inputs
and f_a its activation. beta falls from 20 to 2, so that h may first go where the error wants it and is then driven to
0 or 1. Both terms are taken relative to what rounding to the nearest makes of them, so that lambda means the same for
every layer.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

ZETA, GAMMA = 1.1, -0.1
_LAMBDA = 1.0
_RATE = 1e-2
_BATCH = 256
_WARM = 0.2
"""Share of the steps before the second term counts."""
_BETA = 20.0, 2.0

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One layer: y[g] = f_a(x[g] @ w[g].T + b[g])."""

    weight: Floats
    """(groups, outputs, width)."""
    scale: Floats
    """(groups, outputs, 1)."""
    levels: int
    """The largest integer, q."""
    bias: Floats
    """(groups, 1, outputs)."""
    bounds: tuple[float, float]
    """Of the activation, a clip; infinite where there is none."""
    floats: Floats
    """Rows x of the float model, (groups, rows, width)."""
    quantized: Floats
    """Rows x~ of the quantized model, at the same places."""
    held: int
    """Rows at the end that are not learned from, but judged by."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Integers of the weight's shape, and the error on rows held out, over that of rounding to the nearest."""

    integers: NDArray[np.int8]
    error: float
    """Above 1 where learning did harm."""
    flipped: float
    """The share of weights that are not rounded to the nearest."""


def learn_rounding(problem: Problem, *, steps: int, seed: int) -> Learned:
    """Learn on all rows but the last `held`; on a CPU the same arguments give the same integers."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    layer = _Layer(problem)
    optimizer = torch.optim.Adam([layer.v], lr=_RATE)
    for step in range(steps):
        rows = torch.randint(layer.learned, (min(_BATCH, layer.learned),), generator=generator)
        optimizer.zero_grad()
        loss = layer.error(layer.soft(), rows) / layer.worst
        if step >= _WARM * steps:
            loss = loss + _LAMBDA * layer.undecided(_beta(step, steps))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return layer.result()


class _Layer:
    def __init__(self, problem: Problem) -> None:
        import torch

        self.scale = torch.tensor(problem.scale)
        ratio = torch.tensor(problem.weight) / self.scale
        self.levels = problem.levels
        self.nearest = ratio.round().clamp(-self.levels, self.levels)
        self.low = ratio.floor()
        self.fixed = ratio.abs() > self.levels - 0.5
        rest = (ratio - self.low).clamp(1e-4, 1 - 1e-4)
        sigmoid = (rest - GAMMA) / (ZETA - GAMMA)
        self.v = torch.log(sigmoid / (1 - sigmoid)).requires_grad_()
        self.bounds = problem.bounds
        self.bias = torch.tensor(problem.bias)
        self.inputs = torch.tensor(problem.quantized)
        self.learned = self.inputs.shape[1] - problem.held
        weight = torch.tensor(problem.weight)
        self.wanted = self.active(torch.tensor(problem.floats) @ weight.transpose(1, 2) + self.bias)
        self.worst = max(float(self.error(self.nearest, slice(0, self.learned))), 1e-30)

    def active(self, values: "torch.Tensor") -> "torch.Tensor":
        return values.clamp(*self.bounds)

    def h(self) -> "torch.Tensor":
        import torch

        return (torch.sigmoid(self.v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def soft(self) -> "torch.Tensor":
        """Integers that are still between two."""
        import torch

        return torch.where(self.fixed, self.nearest, (self.low + self.h()).clamp(-self.levels, self.levels))

    def error(self, integers: "torch.Tensor", rows: "torch.Tensor | slice") -> "torch.Tensor":
        """The mean square over these rows."""
        made = self.active(self.inputs[:, rows] @ (integers * self.scale).transpose(1, 2) + self.bias)
        return (made - self.wanted[:, rows]).square().mean()

    def undecided(self, beta: float) -> "torch.Tensor":
        return (1 - (2 * self.h() - 1).abs().pow(beta)).mean()

    def result(self) -> Learned:
        import torch

        with torch.no_grad():
            up = self.low + (self.h() >= 0.5)
            integers = torch.where(self.fixed, self.nearest, up.clamp(-self.levels, self.levels))
            held = slice(self.learned, None)
            before, after = (float(self.error(item, held)) for item in (self.nearest, integers))
        error = after / before if before > 0 else math.inf
        flipped = float((integers != self.nearest).float().mean())
        return Learned(integers=integers.numpy().astype(np.int8), error=error, flipped=flipped)


def _beta(step: int, steps: int) -> float:
    """From high to low by half a cosine, over the steps after the warm ones."""
    high, low = _BETA
    done = (step - _WARM * steps) / max((1 - _WARM) * steps, 1)
    return low + 0.5 * (high - low) * (1 + math.cos(math.pi * done))
