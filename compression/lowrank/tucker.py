"""Tucker-2: fewer input channels, a kernel over few channels, back to all outputs.

Kim et al. 2016 (arXiv:1511.06530), section 3.1; the sweeps are De Lathauwer et al. 2000, higher-order orthogonal
iteration, which with data become reduced-rank regression behind each choice of input channels.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from compression.lowrank.factors import Built, Option, Problem, finish, option
from compression.lowrank.geometry import StageShape
from compression.lowrank.norm import descending, dominant
from compression.lowrank.view import View, view

Doubles = NDArray[np.float64]
_SWEEPS = 4


def tucker_chain(problem: Problem, inner: int, outer: int) -> tuple[StageShape, ...]:
    """Ranks of the input and of the output channels; a full one needs no 1x1."""
    shape = problem.geometry
    axes, points = tuple(range(len(shape.kernel))), (1,) * len(shape.kernel)
    chain = [StageShape(outputs=outer, inputs=inner, kernel=shape.kernel, carries=axes)]
    if inner < shape.inputs:
        chain.insert(0, StageShape(outputs=inner, inputs=shape.inputs, kernel=points))
    if outer < shape.outputs:
        chain.append(StageShape(outputs=shape.outputs, inputs=outer, kernel=points))
    return tuple(chain)


def tucker_options(problem: Problem) -> Iterator[Option | None]:
    """Errors are those of the truncated higher-order SVD, with taps alike and unrelated where there is data."""
    shape, energies = problem.geometry, _core_energies(view(problem))
    whole = max(float(energies[-1, -1]), 1e-300)
    for inner in (*problem.steps(shape.inputs), shape.inputs):
        for outer in (*problem.steps(shape.outputs), shape.outputs):
            if (inner, outer) != (shape.inputs, shape.outputs):
                lost = max(1 - float(energies[outer - 1, inner - 1]) / whole, 0.0)
                yield option(problem, "tucker", (inner, outer), tucker_chain(problem, inner, outer), lost)


def build_tucker(problem: Problem, chosen: Option) -> Built:
    inner, outer = chosen.ranks
    outputs, inputs = problem.weight.shape[:2]
    if inner == inputs:
        found = dominant(problem.flat, problem.norm)
        left, core = found.left[:, :outer], found.right[:outer]
        return finish(problem, chosen, (core, left), left @ core)
    seen = view(problem)
    if outer == outputs:
        reduce = seen.reduction(seen.weight, inner)
        core, _ = seen.regressed(reduce)
        return finish(problem, chosen, (reduce, core), seen.composed(core, reduce))
    reduce, core, left = _swept(problem, seen, inner, outer)
    return finish(problem, chosen, (reduce, core, left), seen.composed(left @ core, reduce))


def _swept(problem: Problem, seen: View, inner: int, outer: int) -> tuple[Doubles, Doubles, Doubles]:
    left = dominant(problem.flat, problem.norm).left[:, :outer]
    for _ in range(_SWEEPS):
        basis, _ = np.linalg.qr(left)
        reduce = seen.reduction(np.tensordot(basis.T, seen.weight, axes=1), inner)
        full, gram = seen.regressed(reduce)
        left = descending(full @ gram @ full.T)[1][:, :outer]
    return reduce, left.T @ full, left


def _core_energies(seen: View) -> Doubles:
    """Energy of the leading parts of the core, of shape (outputs, inputs)."""
    white = np.moveaxis(seen.weight, 1, 0)
    white = seen.root.whiten(white.reshape(len(white), -1)).reshape(white.shape)
    white = np.moveaxis(white, 0, 1)
    _, left = descending(_gram(white))
    _, right = descending(_gram(np.moveaxis(white, 1, 0)))
    core = np.einsum("oit,oa,ib->abt", white, left, right, optimize=True)
    return np.asarray(np.square(core).sum(axis=2).cumsum(axis=0).cumsum(axis=1))


def _gram(tensor: Doubles) -> Doubles:
    flat = tensor.reshape(len(tensor), -1)
    return np.asarray(flat @ flat.T)
