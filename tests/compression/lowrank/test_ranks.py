"""Chains of low rank against numpy: truncated SVD, its whitened form, and the rank under noise."""

import numpy as np
import pytest

from compression.lowrank.evbmf import evbmf_rank
from compression.lowrank.factors import Problem
from compression.lowrank.forms import build, options
from compression.lowrank.geometry import Geometry
from compression.lowrank.norm import Norm

RNG = np.random.default_rng(8)


def problem(weight: np.ndarray, moments: np.ndarray | None = None) -> Problem:
    outputs, inputs, *kernel = weight.shape
    size = (8,) * len(kernel)
    geometry = Geometry(outputs=outputs, inputs=inputs, kernel=tuple(kernel), before=size, after=size)
    norm = Norm(inputs=inputs, kernel=tuple(kernel), moments=moments)
    return Problem(geometry=geometry, weight=weight, norm=norm, width=4, round_to=4, seed=0)


def of_rank(rank: int, outputs: int, inputs: int) -> np.ndarray:
    return RNG.normal(size=(outputs, rank)) @ RNG.normal(size=(rank, inputs))


@pytest.mark.parametrize("rank", [1, 5, 12])
@pytest.mark.parametrize(("rows", "columns"), [(60, 60), (50, 120), (120, 50)])
def test_the_rank_under_noise_is_found(rank: int, rows: int, columns: int) -> None:
    matrix = of_rank(rank, rows, columns) + RNG.normal(size=(rows, columns)) * 0.3
    assert evbmf_rank(np.linalg.svd(matrix, compute_uv=False), rows, columns) == rank


def test_noise_alone_has_no_rank() -> None:
    noise = RNG.normal(size=(80, 100))
    assert evbmf_rank(np.linalg.svd(noise, compute_uv=False), 80, 100) == 0


def test_a_matrix_becomes_its_truncated_svd() -> None:
    weight = RNG.normal(size=(48, 64))
    left, values, right = np.linalg.svd(weight)
    for option in options(problem(weight), "svd"):
        (rank,) = option.ranks
        best = (left[:, :rank] * values[:rank]) @ right[:rank]
        made = build(problem(weight), option)
        assert np.allclose(made.composed, best)
        lost = (values[rank:] ** 2).sum() / (values**2).sum()
        assert made.error == pytest.approx(lost)
        assert option.error == pytest.approx(lost)
        first, second = made.kernels
        assert np.allclose(second.reshape(48, rank) @ first.reshape(rank, 64), best)


def test_with_data_the_outputs_error_is_the_least_there_is() -> None:
    """|(W - W') X| of the best W' of a rank is the tail of the singular values of W X."""
    weight = RNG.normal(size=(48, 64))
    inputs = (RNG.normal(size=(500, 64)) * np.linspace(0.05, 3, 64)) @ RNG.normal(size=(64, 64))
    values = np.linalg.svd(weight @ inputs.T, compute_uv=False)
    whitened, plain = problem(weight, inputs.T @ inputs / len(inputs)), problem(weight)
    for option in options(whitened, "svd")[::2]:
        (rank,) = option.ranks
        made = build(whitened, option)
        found = np.linalg.norm((weight - made.composed) @ inputs.T) ** 2
        assert found == pytest.approx((values[rank:] ** 2).sum(), rel=1e-6)
        same = next(item for item in options(plain, "svd") if item.ranks == (rank,))
        other = np.linalg.norm((weight - build(plain, same).composed) @ inputs.T) ** 2
        assert found < other


@pytest.mark.parametrize("form", ["tucker", "spatial", "cp"])
def test_kernels_get_nearer_with_their_ranks(form: str) -> None:
    weight = RNG.normal(size=(16, 12, 3, 3))
    found = sorted(options(problem(weight), form), key=lambda item: item.macs)  # type: ignore[arg-type]
    errors = [build(problem(weight), item).error for item in found[:: max(len(found) // 4, 1)]]
    assert errors[-1] < errors[0]
    assert all(0 <= error < 1 for error in errors)
