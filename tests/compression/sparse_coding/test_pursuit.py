"""OMP and K-SVD against scikit-learn and against what signals were made from."""

import numpy as np
import pytest
from sklearn.linear_model import orthogonal_mp

from compression.sparse_coding.dictionary import coded, learn, matrix, refitted, with_steps
from compression.sparse_coding.layout import Layout, usual_block
from compression.sparse_coding.pursuit import Codes, pursue, rounded


def made(signals: int, atoms: int, size: int, nonzeros: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Signals that are exact sums of a few atoms, and the atoms."""
    random = np.random.default_rng(seed)
    dictionary = random.normal(size=(atoms, size))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    gains = np.zeros((signals, atoms))
    for row in gains:
        row[random.choice(atoms, nonzeros, replace=False)] = random.normal(size=nonzeros)
    return gains @ dictionary, dictionary


@pytest.mark.parametrize("nonzeros", [1, 3, 6])
def test_pursuit_finds_what_scikit_learn_finds(nonzeros: int) -> None:
    random = np.random.default_rng(1)
    dictionary = random.normal(size=(40, 16))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    signals = random.normal(size=(200, 16))
    theirs = orthogonal_mp(dictionary.T, signals.T, n_nonzero_coefs=nonzeros)
    ours = matrix(pursue(signals, dictionary, nonzeros), 40).toarray()
    assert np.allclose(ours, theirs.T, atol=1e-8)


def test_atoms_of_any_length_give_the_same_signals() -> None:
    random = np.random.default_rng(2)
    dictionary, signals = random.normal(size=(20, 8)), random.normal(size=(50, 8))
    unit = dictionary / np.linalg.norm(dictionary, axis=1, keepdims=True)
    one, other = pursue(signals, dictionary, 3), pursue(signals, unit, 3)
    assert np.allclose(one.of(dictionary), other.of(unit))


def test_a_tolerance_ends_the_code_of_a_signal() -> None:
    random = np.random.default_rng(3)
    dictionary, signals = random.normal(size=(60, 16)), random.normal(size=(300, 16))
    codes = pursue(signals, dictionary, 16, tolerance=4.0)
    left = np.sum((signals - codes.of(dictionary)) ** 2, axis=1)
    counts = np.count_nonzero(codes.gains, axis=1)
    assert left.max() <= 4.0 + 1e-9
    assert len(set(counts)) > 2
    shorter = pursue(signals, dictionary, 1)
    one_is_enough = np.sum((signals - shorter.of(dictionary)) ** 2, axis=1) <= 4.0
    assert ((counts <= 1) == one_is_enough).all()


def test_zeros_take_no_atom() -> None:
    dictionary = np.random.default_rng(4).normal(size=(8, 4))
    codes = pursue(np.zeros((5, 4)), dictionary, 3)
    assert not codes.gains.any()


def test_ksvd_finds_the_atoms_again() -> None:
    """As section V.B of Aharon et al. 2006: of planted atoms most are found up to their sign."""
    signals, planted = made(1500, 24, 16, 3)
    found = learn(signals, 24, 3, tolerance=0.0, rounds=40, seed=0)
    likeness = np.abs(found @ planted.T).max(axis=0)
    assert np.allclose(np.linalg.norm(found, axis=1), 1)
    assert (likeness > 0.99).mean() > 0.8


def test_more_rounds_leave_less() -> None:
    signals = np.random.default_rng(5).normal(size=(600, 12)) ** 3
    left = [
        np.sum((signals - pursue(signals, d, 2).of(d)) ** 2)
        for d in (learn(signals, 30, 2, tolerance=0.0, rounds=rounds, seed=0) for rounds in (1, 5, 25))
    ]
    assert left[0] > left[1] > left[2]


def test_whole_gains_are_no_worse_than_rounding_and_stay_in_bounds() -> None:
    random = np.random.default_rng(6)
    dictionary, signals = random.normal(size=(32, 12)) * 0.3, random.normal(size=(400, 12))
    codes = pursue(signals, dictionary, 4)
    made = rounded(codes, signals, dictionary, 7)
    plain = Codes(atoms=codes.atoms, gains=np.clip(np.rint(codes.gains), -7, 7))
    assert (made.gains == np.rint(made.gains)).all()
    assert np.abs(made.gains).max() <= 7
    errors = [np.sum((signals - item.of(dictionary)) ** 2) for item in (made, plain)]
    assert errors[0] < errors[1]


def test_a_refitted_dictionary_is_the_least_squares_one() -> None:
    random = np.random.default_rng(7)
    dictionary, signals = random.normal(size=(10, 6)), random.normal(size=(300, 6))
    codes = coded(signals, dictionary, 2, 0.0, 7)
    wanted = np.linalg.lstsq(matrix(codes, 10).toarray(), signals, rcond=None)[0]
    assert np.allclose(refitted(signals, codes, dictionary), wanted, atol=1e-5)


def test_steps_make_whole_gains_nearly_as_good_as_any() -> None:
    signals, _ = made(800, 20, 12, 2)
    dictionary = learn(signals, 20, 2, tolerance=0.0, rounds=20, seed=0)
    stepped = with_steps(signals, dictionary, 2, 0.0, 127)
    codes = coded(signals, stepped, 2, 0.0, 127)
    free = np.sum((signals - pursue(signals, dictionary, 2).of(dictionary)) ** 2)
    error = np.sum((signals - codes.of(stepped)) ** 2)
    assert error < free + 1e-3 * np.sum(signals**2)


@pytest.mark.parametrize(
    ("shape", "outputs", "block"),
    [
        ((8, 6, 3, 3), 0, None),
        ((10, 17), 0, 4),
        ((17, 10), 1, 4),
        ((2, 12, 5), 1, None),
        ((6, 5, 7, 7), 0, 16),
    ],
)
def test_layouts_give_every_weight_back(shape: tuple[int, ...], outputs: int, block: int | None) -> None:
    weight = np.random.default_rng(8).normal(size=shape)
    layout = Layout.of(shape, outputs, block)
    rows = layout.matrix(weight)
    assert np.array_equal(rows, np.moveaxis(weight, outputs, 0).reshape(shape[outputs], -1))
    assert np.array_equal(layout.stored(rows), weight)
    assert np.array_equal(layout.joined(layout.cut(rows)), rows)
    assert layout.cut(rows).shape == (layout.signals, layout.block)


def test_blocks_hold_whole_kernels() -> None:
    assert usual_block((64, 32, 3, 3), 0) == 9
    assert usual_block((64, 32, 5, 5), 0) == 25
    assert usual_block((64, 32, 3), 0) == 9
    assert usual_block((64, 32, 1, 1), 0) == 8
    assert usual_block((64, 32, 7, 7), 0) == 8
    assert usual_block((64, 4), 0) == 4
    assert usual_block((1000, 64), 1) == 8
