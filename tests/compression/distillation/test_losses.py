"""Each loss against its paper's formula in numpy, and zero where both models agree."""

import numpy as np
import pytest
import torch

from compression.distillation import losses
from compression.distillation.losses import hard_labels, to_logits
from compression.distillation.readings import Reading

RNG = np.random.default_rng(7)
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def pair(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    return RNG.normal(size=shape), RNG.normal(size=shape)


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(np.asarray(array)) for array in arrays]


def softmax(z: np.ndarray, axis: int = 1) -> np.ndarray:
    raised = np.exp(z - z.max(axis=axis, keepdims=True))
    return raised / raised.sum(axis=axis, keepdims=True)


def huber(x: np.ndarray) -> float:
    return float(np.where(np.abs(x) <= 1, x**2 / 2, np.abs(x) - 0.5).mean())


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (lambda a, b: losses.soft_labels(a, b, temperature=3), (4, 5)),
        (lambda a, b: losses.soft_decisions(a, b, temperature=3), (4, 5)),
        (losses.soft_values, (4, 5)),
        (losses.features, (4, 5, 3, 3)),
        (losses.attention, (4, 5, 3, 3)),
        (losses.distances, (6, 5)),
        (losses.angles, (6, 5)),
        (losses.gradients, (4, 5, 3)),
    ],
)
def test_agreement_costs_nothing(loss: object, shape: tuple[int, ...]) -> None:
    student, teacher = tensors(*pair(*shape))
    assert float(loss(student, teacher)) > 1e-3
    assert abs(float(loss(teacher.clone(), teacher))) < 1e-9


@pytest.mark.parametrize("axis", [1, 2])
def test_soft_labels(axis: int) -> None:
    """- sum p log q less the teacher's entropy, times T^2, over the mean of all positions."""
    student, teacher = pair(4, 5, 6)
    p, q = softmax(teacher / 2.5, axis), softmax(student / 2.5, axis)
    expected = 2.5**2 * (-(p * np.log(q)).sum(axis=axis) + (p * np.log(p)).sum(axis=axis)).mean()
    found = losses.soft_labels(*tensors(student, teacher), temperature=2.5, axis=axis)
    np.testing.assert_allclose(float(found), expected, **CLOSE)


def test_soft_labels_have_the_gradient_of_the_cross_entropy() -> None:
    """Hinton et al. 2015, equation 2: dC/dz = (q - p) / T for one sample; times T^2 here."""
    student, teacher = tensors(*pair(1, 5))
    student.requires_grad_()
    losses.soft_labels(student, teacher, temperature=3).backward()
    expected = 3 * (softmax(student.detach().numpy() / 3) - softmax(teacher.numpy() / 3))
    np.testing.assert_allclose(student.grad, expected, **CLOSE)


def test_soft_decisions() -> None:
    student, teacher = pair(4, 3)
    p, q = 1 / (1 + np.exp(-teacher / 2)), 1 / (1 + np.exp(-student / 2))
    expected = 4 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()
    found = losses.soft_decisions(*tensors(student, teacher), temperature=2)
    np.testing.assert_allclose(float(found), expected, **CLOSE)


def test_values_are_relative_to_the_teachers_variance() -> None:
    student, teacher = pair(4, 3)
    expected = ((student - teacher) ** 2).mean() / teacher.var()
    np.testing.assert_allclose(float(losses.soft_values(*tensors(student, teacher))), expected, **CLOSE)


def test_features_on_the_coarser_grid() -> None:
    student, teacher = RNG.normal(size=(2, 3, 2, 2)), RNG.normal(size=(2, 3, 4, 4))
    coarse = teacher.reshape(2, 3, 2, 2, 2, 2).mean(axis=(3, 5))
    expected = ((student - coarse) ** 2).mean() / coarse.var()
    np.testing.assert_allclose(float(losses.features(*tensors(student, teacher))), expected, **CLOSE)


def test_attention_maps() -> None:
    student, teacher = pair(4, 5, 3, 2)
    maps = [(value**2).sum(axis=1).reshape(4, -1) for value in (student, teacher)]
    one, other = (value / np.linalg.norm(value, axis=1, keepdims=True) for value in maps)
    expected = ((one - other) ** 2).sum(axis=1).mean()
    np.testing.assert_allclose(float(losses.attention(*tensors(student, teacher))), expected, **CLOSE)


def test_distances_between_samples() -> None:
    relative = []
    arrays = pair(6, 5)
    for value in arrays:
        found = np.linalg.norm(value[:, None] - value[None], axis=2)[~np.eye(6, dtype=bool)]
        relative.append(found / found.mean())
    expected = huber(relative[0] - relative[1])
    np.testing.assert_allclose(float(losses.distances(*tensors(*arrays))), expected, **CLOSE)


def test_angles_between_samples() -> None:
    """Sample by sample: the cosine at j of the angle from i to k; triplets that are no angle count zero."""
    arrays = pair(5, 4)
    found = np.zeros((2, 5, 5, 5))
    for index, value in enumerate(arrays):
        for i, j, k in np.ndindex(5, 5, 5):
            one, other = value[i] - value[j], value[k] - value[j]
            if i != j and k != j:
                found[index, i, j, k] = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    np.testing.assert_allclose(float(losses.angles(*tensors(*arrays))), huber(found[0] - found[1]), **CLOSE)


def test_equal_samples_have_finite_gradients() -> None:
    student = torch.zeros(4, 3, requires_grad=True)
    (losses.distances(student, torch.randn(4, 3)) + losses.angles(student, torch.randn(4, 3))).backward()
    assert torch.isfinite(student.grad).all()


def test_gradients_count_by_direction() -> None:
    student, teacher = pair(3, 4)
    one, other = (value / np.linalg.norm(value, axis=1, keepdims=True) for value in (student, teacher))
    expected = ((one - other) ** 2).sum(axis=1).mean()
    np.testing.assert_allclose(float(losses.gradients(*tensors(student, teacher))), expected, **CLOSE)
    np.testing.assert_allclose(float(losses.gradients(*tensors(9 * teacher, teacher))), 0, atol=1e-9)


def test_probabilities_become_logits() -> None:
    (z,) = tensors(RNG.normal(size=(3, 4)))
    classes = Reading(kind="classes", probabilities=True)
    torch.testing.assert_close(to_logits(z.softmax(1), classes).softmax(1), z.softmax(1))
    decisions = Reading(kind="decisions", probabilities=True)
    torch.testing.assert_close(to_logits(z.sigmoid(), decisions), z)


def test_hard_labels_per_position_leave_out_the_ignored() -> None:
    logits = RNG.normal(size=(2, 3, 4))
    labels = np.array([[0, 3, -100], [1, -100, 2]])
    p = softmax(logits, 2)
    known = [(n, t) for n, t in np.ndindex(2, 3) if labels[n, t] >= 0]
    expected = -np.mean([np.log(p[n, t, labels[n, t]]) for n, t in known])
    found = hard_labels(*tensors(logits, labels), Reading(kind="classes", axis=2))
    np.testing.assert_allclose(float(found), expected, **CLOSE)


def test_hard_decisions_and_values() -> None:
    logits, labels = RNG.normal(size=(4, 1)), np.array([0, 1, 1, 0])
    p = 1 / (1 + np.exp(-logits[:, 0]))
    expected = -np.log(np.where(labels == 1, p, 1 - p)).mean()
    found = hard_labels(*tensors(logits, labels), Reading(kind="decisions"))
    np.testing.assert_allclose(float(found), expected, **CLOSE)
    wanted = RNG.normal(size=4)
    found = hard_labels(*tensors(logits, wanted), Reading(kind="values"))
    np.testing.assert_allclose(float(found), ((logits[:, 0] - wanted) ** 2).mean(), **CLOSE)
