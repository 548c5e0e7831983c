"""The estimate of bits, against counts by hand."""

import numpy as np
import pytest
import torch

from compression.entropy_training.code import FLOOR, LARGEST, PRIOR, fitted


def test_a_vector_takes_its_entropy() -> None:
    """Half a one beside 8 of 16, then 6 and 2 of the 8, as often as FLOOR says beside the values at both ends."""
    numbers = torch.tensor([0.0] * 8 + [1.0] * 6 + [-1.0] * 2)
    chance = 8.5 / 17
    values = np.array([FLOOR, 2 + FLOOR, 6 + FLOOR, FLOOR])
    ones, others = -np.log2(values[2] / values.sum()), -np.log2(values[1] / values.sum())
    expected = -8 * np.log2(1 - chance) - 8 * np.log2(chance) + 6 * ones + 2 * others
    assert float(fitted(numbers).bits(numbers).sum()) == pytest.approx(expected, rel=1e-5)


def test_numbers_beyond_all_measure_take_a_table_of_bounded_size() -> None:
    numbers = torch.tensor([0.0, 1.0, 1e12, -1e12])
    code = fitted(numbers)
    assert len(code.values) <= 2 * LARGEST + 3
    assert torch.isfinite(code.bits(numbers)).all()


def test_rows_and_columns_have_chances_of_their_own() -> None:
    there = np.zeros((4, 6, 2))
    there[0] = 1
    there[:, 1, 0] = 1
    everywhere = (there.sum() + 0.5) / (there.size + 1)
    rows = (there.sum(axis=(1, 2), keepdims=True) + PRIOR * everywhere) / (12 + PRIOR)
    columns = (there.sum(axis=(0, 2), keepdims=True) + PRIOR * everywhere) / (8 + PRIOR)
    odds = rows / (1 - rows) * (columns / (1 - columns)) / (everywhere / (1 - everywhere))
    code = fitted(torch.from_numpy(there))
    np.testing.assert_allclose(code.zero.numpy(), -np.log2(1 / (1 + odds)), rtol=1e-4)
    np.testing.assert_allclose(code.other.numpy(), -np.log2(odds / (1 + odds)), rtol=1e-4)


def test_what_is_alone_in_its_row_and_column_is_dear() -> None:
    numbers = torch.zeros(16, 16)
    numbers[:4, :4] = 1
    code = fitted(numbers)
    inside, outside = code.bits(torch.ones(16, 16))[0, 0], code.bits(torch.ones(16, 16))[9, 9]
    assert inside < 1 and outside > 7


def test_the_slope_is_that_of_straight_lines_between_whole_numbers() -> None:
    numbers = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, -1.0, 2.0, -3.0])
    code = fitted(numbers)
    places = torch.tensor([0.3, -0.3, 0.9, -1.0, 1.4, -2.6, 0.0, 2.5, -3.2, 3.7])

    def drawn(at: torch.Tensor) -> torch.Tensor:
        below, share = at.floor(), at - at.floor()
        return (1 - share) * code.bits(below) + share * code.bits(below + 1)

    slope = (drawn(places + 0.05) - drawn(places + 0.01)) / 0.04
    np.testing.assert_allclose(code.slope(places).numpy(), slope.numpy(), atol=1e-4)
    assert code.slope(torch.tensor([0.4])) > 0 > code.slope(torch.tensor([-0.4]))
    assert code.slope(torch.tensor([-7.4])) == code.slope(torch.tensor([-3.4])) < 0


def test_all_zeros_take_next_to_nothing() -> None:
    numbers = torch.zeros(100, 100)
    assert float(fitted(numbers).bits(numbers).sum()) < 1
