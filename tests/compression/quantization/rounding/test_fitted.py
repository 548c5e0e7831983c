"""hqq, gptq and awq: their parts against numpy by hand, and nearer outputs than rounding to the nearest."""

import time
from itertools import pairwise

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from compression.quantization.rounding import gptq
from compression.quantization.rounding.awq import find_scales, input_scales
from compression.quantization.rounding.blocks import Rounded, Scheme
from compression.quantization.rounding.gptq import round_by_gptq, upper_factor
from compression.quantization.rounding.grids import searched_grid
from compression.quantization.rounding.hqq import P, round_half_quadratic
from compression.quantization.rounding.objective import output_energy, relative_error
from compression.quantization.rounding.rescaling import rescaled
from compression.quantization.rounding.rtn import round_to_nearest
from tests.compression.quantization.rounding.matrices import inputs, matrix, moments

SCHEME = Scheme(bits=4, block=32, symmetric=False)
SCHEMES = [
    Scheme(bits=bits, block=32, symmetric=symmetric) for bits in (2, 3, 4, 8) for symmetric in (True, False)
]


def test_output_energy_is_that_of_the_outputs():
    rows, weight = inputs(50, 70), matrix()
    expected = np.sum((rows.astype(np.float64) @ weight.T.astype(np.float64)) ** 2)
    assert output_energy(weight, moments(rows)) == pytest.approx(expected, rel=1e-5)
    assert relative_error(weight, weight, moments(rows)) == 0
    assert relative_error(weight, 0 * weight, moments(rows)) == pytest.approx(1)


def test_the_factor_is_the_upper_one_of_the_inverse():
    hessian = moments(inputs(200, 60)) + np.eye(60)
    factor = upper_factor(hessian)
    assert np.allclose(factor, np.triu(factor)) and (np.diagonal(factor) > 0).all()
    np.testing.assert_allclose(factor.T @ factor @ hessian, np.eye(60), atol=1e-7)


def test_one_pass_is_the_papers_algorithm(monkeypatch):
    """Against a plain loop over inputs that updates the inverse Hessian itself (equations 2 and 3)."""
    weight, rows = matrix(6, 40), inputs(300, 40)
    hessian = gptq._damped(moments(rows), 0.01)
    order = np.argsort(-np.diagonal(hessian), kind="stable")
    grid = searched_grid(weight, SCHEME)
    steps, origin = gptq._steps(grid, 40, order)
    left = weight.T[order].astype(np.float64)
    inverse = np.linalg.inv(hessian[np.ix_(order, order)])
    expected = np.zeros(left.shape)
    for k in range(40):
        expected[k] = np.clip(np.rint(left[k] / steps[k]) + origin[k], 0, 15)
        error = (left[k] - (expected[k] - origin[k]) * steps[k]) / inverse[k, k]
        left[k + 1 :] -= np.outer(inverse[k + 1 :, k], error)
        inverse -= np.outer(inverse[:, k], inverse[k]) / inverse[k, k]
    for batch in (1, 7, 64):
        monkeypatch.setattr(gptq, "BATCH", batch)
        factor = upper_factor(hessian[np.ix_(order, order)]).astype(np.float32)
        made = gptq._pass(np.ascontiguousarray(weight.T[order]), steps, origin, SCHEME, factor)
        # float32 against float64: a weight may lie on the border between two codes.
        assert np.mean(made != expected) < 0.01


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_a_sweep_of_descent_never_raises_the_error(batch, monkeypatch):
    monkeypatch.setattr(gptq, "BATCH", batch)
    weight, hessian = matrix(16, 64), gptq._damped(moments(inputs(300, 64)), 0.01)
    made = round_to_nearest(weight, SCHEME)
    steps, origin = gptq._steps(made.grid, 64, np.arange(64))
    codes = made.codes.T.astype(np.float32).copy()
    errors = [output_energy(weight - made.values(), hessian)]
    for _ in range(3):
        gptq._descend(
            np.ascontiguousarray(weight.T),
            codes,
            steps,
            origin,
            scheme=SCHEME,
            hessian=hessian.astype(np.float32),
        )
        values = ((codes - origin) * steps).T
        errors.append(output_energy(weight - values, hessian))
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(errors))
    assert errors[1] < 0.9 * errors[0]


def test_scales_are_those_of_least_squares():
    weight, hessian = matrix(5, 64), moments(inputs(300, 64))
    made = round_to_nearest(weight, SCHEME)
    grid = rescaled(weight, made.codes, made.grid, hessian)
    root = np.linalg.cholesky(hessian).T
    for row in range(5):
        steps = made.codes[row].astype(float) - np.repeat(made.grid.zero_point[row].astype(float), 32)
        columns = np.stack([np.where(np.arange(64) // 32 == block, steps, 0) for block in range(2)], axis=1)
        expected = np.linalg.lstsq(root @ columns, root @ weight[row].astype(float), rcond=None)[0]
        np.testing.assert_allclose(grid.scale[row], expected, rtol=1e-3)
    before = output_energy(weight - made.values(), hessian)
    assert output_energy(weight - Rounded(codes=made.codes, grid=grid).values(), hessian) < before


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_gptq_is_nearer_on_rows_it_has_not_seen(scheme):
    weight, fit, aside = matrix(48, 128), moments(inputs(2000, 128)), moments(inputs(500, 128, seed=1))
    nearest = relative_error(weight, round_to_nearest(weight, scheme).values(), aside)
    fitted = relative_error(weight, round_by_gptq(weight, scheme, fit).values(), aside)
    assert fitted < 0.75 * nearest


@pytest.mark.parametrize("rows", [0, 1, 20])
def test_gptq_copes_with_few_rows_and_dead_inputs(rows):
    data = inputs(rows, 64)
    data[:, 5] = 0
    made = round_by_gptq(matrix(8, 64), SCHEME, moments(data))
    assert np.isfinite(made.values()).all()
    assert np.abs(made.values() - matrix(8, 64)).max() < 0.2


def test_gptq_refuses_moments_that_are_no_numbers():
    with pytest.raises(FloatingPointError):
        round_by_gptq(matrix(8, 64), SCHEME, np.full((64, 64), np.nan))


def test_gptq_takes_a_short_last_block_and_constant_rows():
    weight = matrix(9, 50)
    weight[3] = 0
    weight[4] = 0.25
    made = round_by_gptq(weight, SCHEME, moments(inputs(300, 50)))
    assert (made.values()[3] == 0).all()
    np.testing.assert_allclose(made.values()[4], 0.25, atol=0.02)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_hqq_leaves_less_in_its_own_norm(scheme):
    weight = (np.random.default_rng(2).standard_t(3, size=(40, 96)) * 0.1).astype(np.float32)

    def norm(made):
        return float(np.sum(np.abs(made.values() - weight) ** P))

    assert norm(round_half_quadratic(weight, scheme)) < norm(round_to_nearest(weight, scheme))


def test_hqq_keeps_zeros_and_constants():
    weight = np.zeros((3, 64), np.float32)
    weight[1] = 0.5
    made = round_half_quadratic(weight, SCHEME).values()
    assert (made[0] == 0).all()
    np.testing.assert_allclose(made[1], 0.5, rtol=1e-6)


def test_awq_protects_inputs_that_carry_much():
    rows = inputs(1000, 128)
    rows[:, ::16] *= 30
    weight, scheme = matrix(48, 128), Scheme(bits=3, block=32, symmetric=False)
    fit, aside = moments(rows), moments(rows[::-1][:300])
    scales = find_scales(weight, scheme, fit, np.abs(rows).mean(axis=0, dtype=np.float64))
    assert scales[::16].min() > np.median(scales)
    scaled = round_to_nearest(weight * scales, scheme).values() / scales
    plain = round_to_nearest(weight, scheme).values()
    assert relative_error(weight, scaled, aside) < 0.8 * relative_error(weight, plain, aside)


def test_awq_leaves_even_inputs_alone():
    rows = np.random.default_rng(0).normal(size=(500, 64)).astype(np.float32)
    assert find_scales(matrix(16, 64), SCHEME, moments(rows), np.ones(64)) is None


def test_awqs_scales_are_balanced():
    scales = input_scales(np.array([1.0, 4.0, 16.0]), 0.5)
    np.testing.assert_allclose(scales, [0.5, 1, 2], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["gptq", "hqq"])
def test_a_matrix_of_1024_takes_a_second_at_most(algorithm):
    """CPU seconds of one thread, the better of two, so that other work on the machine counts little."""
    weight, rows = matrix(1024, 1024), np.random.default_rng(0).normal(size=(2048, 1024)).astype(np.float32)
    hessian = (rows.T @ rows).astype(np.float64)
    seconds = []
    with threadpool_limits(1):
        for _ in range(2):
            begin = time.thread_time()
            if algorithm == "gptq":
                round_by_gptq(weight, SCHEME, hessian)
            else:
                round_half_quadratic(weight, SCHEME)
            seconds.append(time.thread_time() - begin)
    assert min(seconds) < 1
