"""The proximal step after each optimizer step, and the cut that ends a training."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compression.sparse_learning.parts import Optimizer, Part
from compression.sparse_learning.strength import LOOKS, Course, cut_of, density, first_strength, ranks
from compression.training.keeping import State


@dataclass(kw_only=True)
class Shrinking:
    """Called after each optimizer step. What it remembers lies in `state` and goes into checkpoints.

    Args:
        scopes: parts that share one strength and one target.
        sparsity: share of each scope's members that is zero in the end; None where the strength decides.
        strength: lambda; None finds it.
        threshold: members smaller than this become zero in the end.
        state: what the keeper saves for the method.
    """

    scopes: Sequence[Sequence[Part]]
    sparsity: float | None
    strength: float | None
    threshold: float | None
    state: State

    @property
    def strengths(self) -> list[float]:
        """Of each scope; empty before the first look where they are to be found."""
        if self.strength is not None:
            return [self.strength] * len(self.scopes)
        found: list[float] = self.state.plain.get("strengths", [])
        return found

    def __call__(self, number: int, steps: int, optimizer: Optimizer) -> None:
        done, last = number + 1, number + 1 == steps
        if last and self.sparsity is not None:
            self._cut_to(self.sparsity)
            return
        for scope, strength in zip(self.scopes, self.strengths, strict=False):
            for part, spared in zip(scope, self._spared(scope), strict=True):
                part.shrink(optimizer, strength, spared)
        if last and self.threshold is not None:
            for part in (part for scope in self.scopes for part in scope):
                part.keep(part.magnitudes() >= self.threshold)
        if self.strength is None and done % max(steps // LOOKS, 1) == 0:
            self._look(done, steps, optimizer)

    def _look(self, done: int, steps: int, optimizer: Optimizer) -> None:
        """Sets the strengths, or brings them nearer to what the density asks for."""
        assert self.sparsity is not None
        plain = self.state.plain
        if "strengths" not in plain:
            plain["densities"] = [density(scope) for scope in self.scopes]
            plain["strengths"] = [
                first_strength(scope, optimizer, self.sparsity, steps) for scope in self.scopes
            ]
            return
        for index, scope in enumerate(self.scopes):
            course = Course(start=plain["densities"][index], end=1 - self.sparsity)
            plain["strengths"][index] *= course.factor(density(scope), done / steps)

    def _spared(self, scope: Sequence[Part]) -> Sequence[Tensor | None]:
        """Of units, those that the target leaves: one that is zero may get no gradient and never come back."""
        if self.sparsity is None or not all(part.needs_one for part in scope):
            return [None] * len(scope)
        return _largest(scope, self.sparsity)

    def _cut_to(self, sparsity: float) -> None:
        """In place of the last proximal step: what the optimizer has just moved is ranked, zeros included."""
        for scope in self.scopes:
            for part, kept in zip(scope, _largest(scope, sparsity), strict=True):
                part.keep(kept)


def _largest(scope: Sequence[Part], sparsity: float) -> list[Tensor]:
    """What stays of each part where this share of all of them goes, the smallest."""
    lines = [ranks(part) for part in scope]
    cut = cut_of(lines, sparsity)
    chosen = (cut.mask(line.cpu().numpy(), index) for index, line in enumerate(lines))
    return [torch.from_numpy(~mask).to(line.device) for mask, line in zip(chosen, lines, strict=True)]


def masks(parts: Sequence[Part]) -> dict[str, Tensor]:
    """What is not zero, by initializer name: where parts overlap, what all of them keep."""
    found: dict[str, Tensor] = {}
    for part in parts:
        for name, mask in part.masks(part.magnitudes() != 0).items():
            found[name] = found[name] & mask if name in found else mask
    return found
