"""Proximal steps against closed forms in numpy, and against what they are defined as minimising."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compression.sparse_learning.parts import Slice, Units, Weights
from compression.sparse_learning.proximal import group_norms, ridge, soft_threshold
from compression.training.optimizing import step_size

RNG = np.random.default_rng(7)


def test_soft_threshold_is_the_closed_form() -> None:
    values = RNG.normal(size=(5, 7)).astype(np.float32)
    sizes = RNG.uniform(0.1, 1.5, size=(5, 7)).astype(np.float32)
    for by in (0.4, sizes):
        found = soft_threshold(
            torch.from_numpy(values), by if isinstance(by, float) else torch.from_numpy(by)
        )
        expected = np.sign(values) * np.maximum(np.abs(values) - np.float32(by), 0)
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-7)
        assert (found.numpy() == 0).sum() == (np.abs(values) <= np.float32(by)).sum()


def test_ridge_is_the_closed_form() -> None:
    values = RNG.normal(size=9)
    np.testing.assert_allclose(ridge(torch.from_numpy(values), 0.5).numpy(), values / 1.5)


def test_groups_with_one_step_size_are_the_closed_form() -> None:
    """max(1 - s * strength / |w|, 0) w, Yuan and Lin 2006; its norm is |w| - s * strength."""
    rows = RNG.normal(size=(6, 8)) * np.array([[0.05, 0.2, 0.5, 1, 2, 4]]).T
    norms = np.linalg.norm(rows, axis=1)
    found = group_norms([(torch.from_numpy(rows[:, :3]), 0.5), (torch.from_numpy(rows[:, 3:]), 0.5)], 2.0)
    np.testing.assert_allclose(found.numpy(), np.maximum(norms - 1.0, 0), rtol=1e-9, atol=1e-12)
    assert 0 < np.count_nonzero(found.numpy()) < 6


@pytest.mark.parametrize("strength", [0.05, 0.7, 3.0])
def test_groups_with_a_step_size_for_each_entry_are_at_the_minimum(strength: float) -> None:
    """The subgradient of strength |v| + sum (v - w)^2 / (2 s) vanishes; where v = 0 it holds zero."""
    rows, sizes = RNG.normal(size=(40, 6)), RNG.uniform(0.01, 3.0, size=(40, 6))
    norms = group_norms([(torch.from_numpy(rows), torch.from_numpy(sizes))], strength).numpy()[:, None]
    after = rows * norms / (norms + strength * sizes)
    pull = (rows - after) / sizes
    gone = norms[:, 0] == 0
    assert (np.linalg.norm(pull[gone], axis=1) <= strength + 1e-9).all()
    direction = after[~gone] / np.linalg.norm(after[~gone], axis=1, keepdims=True)
    np.testing.assert_allclose(pull[~gone], strength * direction, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-14, 1e-9])
def test_steps_of_next_to_nothing_leave_groups_as_they_are(size: float) -> None:
    """As at the end of a cosine; in float32, with entries that are zero."""
    rows = torch.from_numpy(RNG.normal(size=(5, 4)).astype(np.float32))
    rows[0] = 0
    rows[1, 2:] = 0
    expected = np.linalg.norm(rows.numpy(), axis=1)
    for sizes in (size, torch.full_like(rows, size)):
        np.testing.assert_allclose(group_norms([(rows, sizes)], 1e-3).numpy(), expected, rtol=1e-5)


def stepped(kind: type[torch.optim.Optimizer], gradient: Tensor, steps: int, **options: float) -> Tensor:
    """How far a weight moves in the last of so many steps with one gradient, per unit of gradient."""
    weight = nn.Parameter(torch.zeros_like(gradient))
    optimizer = kind([weight], **options)  # type: ignore[call-arg]
    before = weight.detach().clone()
    for _ in range(steps):
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
    size = step_size(optimizer, weight)
    moved = (before - weight.detach()) / gradient
    np.testing.assert_allclose(np.broadcast_to(np.asarray(size), moved.shape), moved.numpy(), rtol=2e-4)
    return moved


def test_step_sizes_are_how_far_the_optimizers_go() -> None:
    gradient = torch.tensor([0.01, 0.5, -3.0])
    stepped(torch.optim.SGD, gradient, 200, lr=0.1, momentum=0.9)
    for kind in (torch.optim.Adam, torch.optim.AdamW):
        moved = stepped(kind, gradient, 300, lr=0.01, weight_decay=0.0)
        np.testing.assert_allclose(moved.numpy(), 0.01 / gradient.abs().numpy(), rtol=1e-3)


def lasso(strength: float, kind: type[torch.optim.Optimizer], rates: list[float]) -> np.ndarray:
    """L1 on a least-squares problem, by proximal steps with the optimizer."""
    data, answers = problem()
    weight = nn.Parameter(torch.zeros(data.shape[1], dtype=torch.float64))
    part = Weights(name="w", layers=(), weight=weight)
    optimizer = kind([weight], lr=rates[0])  # type: ignore[call-arg]
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = (torch.from_numpy(data) @ weight - torch.from_numpy(answers)).square().mean() / 2
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        part.shrink(optimizer, strength)
    return weight.detach().numpy()


def problem() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(80, 12)) * np.linspace(0.5, 3, 12)
    truth = np.where(np.arange(12) % 3 == 0, rng.normal(size=12), 0)
    return data, data @ truth + 0.1 * rng.normal(size=80)


@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        (torch.optim.SGD, [0.05] * 800),
        (torch.optim.Adam, list(np.linspace(0.02, 0.0005, 2500))),
    ],
)
def test_both_optimizers_end_at_the_lasso(kind: type[torch.optim.Optimizer], rates: list[float]) -> None:
    """scikit-learn's coordinate descent minimises |y - X w|^2 / (2 n) + alpha |w|_1."""
    from sklearn.linear_model import Lasso

    data, answers = problem()
    expected = Lasso(alpha=0.2, fit_intercept=False, tol=1e-10).fit(data, answers).coef_
    found = lasso(0.2, kind, rates)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert np.array_equal(found == 0, expected == 0)


def test_units_over_several_tensors_shrink_as_one() -> None:
    """Unit u: row u of one kernel and columns u and u + 3 of another."""
    first, second = (nn.Parameter(torch.from_numpy(RNG.normal(size=size))) for size in ((3, 4), (2, 6)))
    bias = nn.Parameter(torch.ones(3))
    slices = (
        Slice(name="first", weight=first, axis=0, indices=torch.tensor([[0], [1], [2]])),
        Slice(name="second", weight=second, axis=1, indices=torch.tensor([[0, 3], [1, 4], [2, 5]])),
    )
    with torch.no_grad():
        first[1] *= 0.01
        second[:, [1, 4]] *= 0.01
    follower = Slice(name="bias", weight=bias, axis=0, indices=torch.tensor([[0], [1], [2]]))
    units = Units(name="u", layers=(), slices=slices, followers=(follower,))
    one, two = first.detach().numpy().copy(), second.detach().numpy().copy()
    joined = np.concatenate([one, _rows(two)], axis=1)
    np.testing.assert_allclose(units.magnitudes().numpy(), np.sqrt((joined**2).mean(axis=1)))
    optimizer = torch.optim.SGD([first, second], lr=0.1)
    units.shrink(optimizer, 0.5)
    factors = np.maximum(1 - 0.05 * np.sqrt(8) / np.linalg.norm(joined, axis=1), 0)
    assert factors[1] == 0 and factors[0] > 0
    np.testing.assert_allclose(first.detach().numpy(), one * factors[:, None], rtol=1e-6)
    np.testing.assert_allclose(second.detach().numpy(), two * np.tile(factors, 2), rtol=1e-6)
    units.keep(units.magnitudes() != 0)
    assert bias.tolist() == [1, 0, 1]
    masks = units.masks(units.magnitudes() != 0)
    assert masks["second"].numpy().tolist() == [[True, False, True] * 2] * 2


def _rows(values: np.ndarray) -> np.ndarray:
    return np.stack([values[:, [u, u + 3]].reshape(-1) for u in range(3)])
