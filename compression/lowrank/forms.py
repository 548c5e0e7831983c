"""The forms of a chain: what ranks each can have, what they lose, and the weights of one.

1. svd: W = A B over all inputs and taps. Of a kernel: the kernel with fewer outputs, then 1x1 (Zhang et al. 2016,
   arXiv:1505.06798, without its nonlinearity).
2. tucker: 1x1, a smaller kernel, 1x1 (Kim et al. 2016, arXiv:1511.06530); one of the 1x1 may be missing.
3. spatial: the kernel along one axis, then along the others (Jaderberg et al. 2014, arXiv:1405.3866).
4. cp: 1x1, one depthwise convolution for each axis, 1x1 (Lebedev et al. 2015, arXiv:1412.6553).

With data, the factors that see the input are found for whitened channels, and the last one by regression on what it
then sees, which is the exact minimum for it.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from compression.lowrank.factors import Built, Form, Option, Problem, finish, option
from compression.lowrank.geometry import StageShape
from compression.lowrank.norm import dominant, fit
from compression.lowrank.parallel import khatri_rao, parallel_factors
from compression.lowrank.tucker import build_tucker, tucker_options
from compression.lowrank.view import view

Doubles = NDArray[np.float64]


def options(problem: Problem, form: Form) -> tuple[Option, ...]:
    """What saves multiplications and bytes, of ranks that are multiples of `round_to`."""
    found = {
        "svd": _svd_options,
        "tucker": tucker_options,
        "spatial": _spatial_options,
        "cp": _cp_options,
    }[form](problem)
    return tuple(item for item in found if item is not None)


def build(problem: Problem, chosen: Option) -> Built:
    """The weights of a chain."""
    builders = {"svd": _build_svd, "tucker": build_tucker, "spatial": _build_spatial, "cp": _build_cp}
    return builders[chosen.form](problem, chosen)


def first_axes(problem: Problem) -> tuple[int, ...]:
    """Kernel axes of the first convolution of a spatial chain; axes of one tap go with it."""
    rest = problem.geometry.wide_axes[1:]
    return tuple(axis for axis in range(len(problem.geometry.kernel)) if axis not in rest)


def _svd_options(problem: Problem) -> Iterator[Option | None]:
    shape = problem.geometry
    axes, points = tuple(range(len(shape.kernel))), (1,) * len(shape.kernel)
    lost = _lost(dominant(problem.flat, problem.norm).energies)
    for rank in problem.steps(len(lost) - 1):
        chain = (
            StageShape(outputs=rank, inputs=shape.inputs, kernel=shape.kernel, carries=axes),
            StageShape(outputs=shape.outputs, inputs=rank, kernel=points),
        )
        yield option(problem, "svd", (rank,), chain, float(lost[rank]), is_exact=True)


def _build_svd(problem: Problem, chosen: Option) -> Built:
    (rank,) = chosen.ranks
    found = dominant(problem.flat, problem.norm)
    left, right = found.left[:, :rank], found.right[:rank]
    return finish(problem, chosen, (right, left), left @ right)


def _spatial_options(problem: Problem) -> Iterator[Option | None]:
    shape, first, rest = problem.geometry, first_axes(problem), problem.geometry.wide_axes[1:]
    lost = _lost(view(problem, first).energies())
    for rank in problem.steps(min(len(lost) - 1, _size(problem, rest) * shape.outputs)):
        chain = (
            StageShape(outputs=rank, inputs=shape.inputs, kernel=_only(shape.kernel, first), carries=first),
            StageShape(outputs=shape.outputs, inputs=rank, kernel=_only(shape.kernel, rest), carries=rest),
        )
        yield option(problem, "spatial", (rank,), chain, float(lost[rank]))


def _build_spatial(problem: Problem, chosen: Option) -> Built:
    seen = view(problem, first_axes(problem))
    reduce = seen.reduction(seen.weight, chosen.ranks[0])
    after, _ = seen.regressed(reduce)
    return finish(problem, chosen, (reduce, after), seen.composed(after, reduce))


def _cp_options(problem: Problem) -> Iterator[Option | None]:
    """What a rank loses is known when it was tried."""
    shape = problem.geometry
    points, wide = (1,) * len(shape.kernel), shape.wide_axes
    narrow = tuple(axis for axis in range(len(shape.kernel)) if axis not in wide)
    for rank in problem.steps(shape.inputs * shape.outputs):
        deep = [
            StageShape(
                outputs=rank,
                inputs=rank,
                kernel=_only(shape.kernel, (axis,)),
                carries=(axis, *narrow) if axis == wide[0] else (axis,),
                depthwise=True,
            )
            for axis in wide
        ]
        chain = (
            StageShape(outputs=rank, inputs=shape.inputs, kernel=points),
            *deep,
            StageShape(outputs=shape.outputs, inputs=rank, kernel=points),
        )
        found = option(problem, "cp", (rank,), chain, None)
        if found is None and rank > problem.round_to:
            return
        yield found


def _build_cp(problem: Problem, chosen: Option) -> Built:
    """Alternating least squares for whitened input channels, then the last factor by regression."""
    (rank,) = chosen.ranks
    outputs, inputs = problem.weight.shape[:2]
    taps = [problem.geometry.kernel[axis] for axis in problem.geometry.wide_axes]
    root = problem.norm.root()
    white = root.whiten(np.moveaxis(problem.taps, 1, 0).reshape(inputs, -1))
    tensor = np.moveaxis(white.reshape(inputs, outputs, *taps), 0, 1)
    _, reduce, *deep = parallel_factors(tensor, rank, problem.seed)
    reduce = root.unwhiten(reduce)
    seen = khatri_rao([reduce, *deep]).T
    right = problem.norm.times(seen)
    last = fit(problem.flat @ right.T, seen @ right.T)
    return finish(problem, chosen, (reduce.T, *(factor.T for factor in deep), last), last @ seen)


def _size(problem: Problem, axes: tuple[int, ...]) -> int:
    return int(np.prod([problem.geometry.kernel[axis] for axis in axes], dtype=int))


def _only(kernel: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size if axis in axes else 1 for axis, size in enumerate(kernel))


def _lost(energies: Doubles) -> Doubles:
    """Share of the energy that is left out by each rank from 0 on."""
    whole = max(float(energies.sum()), 1e-300)
    return np.maximum(1 - np.concatenate([[0.0], np.cumsum(energies)]) / whole, 0.0)
