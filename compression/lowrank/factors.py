"""A layer to factorize, the chains that may take its place, and their weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compression.lowrank.geometry import Geometry, StageShape, weights
from compression.lowrank.norm import SAME, Norm, Root

Doubles = NDArray[np.float64]
Form = Literal["svd", "tucker", "spatial", "cp"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A weight of shape (outputs, inputs, *kernel) and the norm that its error counts in.

    With `outputs` S the weight is S W for W as it is stored, so that the norm counts S times what the layer gives.
    """

    geometry: Geometry
    weight: Doubles
    norm: Norm
    outputs: Root = SAME
    width: int
    """Bytes of a weight in the file."""
    round_to: int
    seed: int

    @property
    def flat(self) -> Doubles:
        return self.weight.reshape(len(self.weight), -1)

    @property
    def stored(self) -> Doubles:
        """The weight as the model has it."""
        return self.outputs.unwhiten(self.flat).reshape(self.weight.shape)

    @property
    def energy(self) -> float:
        """Of the whole weight, in the norm."""
        return self.norm.energy(self.weight)

    @property
    def taps(self) -> Doubles:
        """The weight as (outputs, inputs, taps)."""
        return self.weight.reshape(*self.weight.shape[:2], -1)

    @cached_property
    def forms(self) -> tuple[Form, ...]:
        """The forms that differ for this layer."""
        wide = len(self.geometry.wide_axes)
        if not wide:
            return ("svd",)
        return ("svd", "tucker", "spatial", "cp") if wide > 1 else ("svd", "tucker", "cp")

    def steps(self, size: int) -> list[int]:
        """Ranks below `size` worth trying: multiples of `round_to`, at most a hundred or so."""
        step = self.round_to * max(1, round(size / 128 / self.round_to))
        return list(range(step, size, step))


@dataclass(frozen=True, kw_only=True)
class Option:
    """A form with its ranks."""

    form: Form
    ranks: tuple[int, ...]
    chain: tuple[StageShape, ...]
    macs: int
    error: float | None
    """Share of the energy that is lost, about; None where only trying tells."""
    is_exact: bool = False
    """Whether `error` is what the built chain has."""

    @property
    def words(self) -> str:
        ranks = " x ".join(str(rank) for rank in self.ranks)
        return f"{_NAMES[self.form]} of {'ranks' if len(self.ranks) > 1 else 'rank'} {ranks}"


_NAMES: dict[Form, str] = {"svd": "SVD", "tucker": "Tucker-2", "spatial": "spatial SVD", "cp": "CP"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Built:
    """The weights of a chain, and the single weight that they amount to, as the model stores them."""

    option: Option
    kernels: tuple[Doubles, ...]
    composed: Doubles
    error: float
    """Share of the energy that is lost."""


def option(
    problem: Problem,
    form: Form,
    ranks: tuple[int, ...],
    chain: Sequence[StageShape],
    error: float | None,
    *,
    is_exact: bool = False,
) -> Option | None:
    """The option, if it saves multiplications and bytes."""
    if not problem.geometry.saves(chain, problem.width):
        return None
    macs = problem.geometry.macs(chain)
    return Option(form=form, ranks=ranks, chain=tuple(chain), macs=macs, error=error, is_exact=is_exact)


def finish(problem: Problem, chosen: Option, kernels: Sequence[Doubles], composed: Doubles) -> Built:
    """Weights as they will be stored, measured against the original."""
    last = problem.outputs.unwhiten(kernels[-1].reshape(len(composed), -1))
    shaped = tuple(
        np.ascontiguousarray(kernel.reshape(_shape(stage)))
        for kernel, stage in zip((*kernels[:-1], last), chosen.chain, strict=True)
    )
    if sum(kernel.size for kernel in shaped) != weights(chosen.chain):
        raise ValueError(f"{chosen.words}: the weights do not have the sizes of its chain")
    error = problem.norm.error(problem.weight, composed.reshape(problem.weight.shape))
    whole = problem.outputs.unwhiten(composed.reshape(len(composed), -1)).reshape(problem.weight.shape)
    return Built(option=chosen, kernels=shaped, composed=whole, error=error)


def _shape(stage: StageShape) -> tuple[int, ...]:
    return (stage.outputs, 1 if stage.depthwise else stage.inputs, *stage.kernel)
