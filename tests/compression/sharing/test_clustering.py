"""k-means against exhaustive search, scikit-learn and by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from compression.sharing.clustering import cluster, cluster_by_rate, cluster_vectors, nearest, within
from compression.sharing.codebook import Codebook, Sharing, learn_codebook

RNG = np.random.default_rng(3)


def error(values, centroids):
    return float(((values - centroids[nearest(values, centroids)]) ** 2).sum())


def best_error(values, entries):
    """Of all ways to cut sorted values into runs, which an optimum is among."""
    ordered = np.sort(values)
    cuts = itertools.combinations(range(1, len(ordered)), entries - 1)
    runs = (np.split(ordered, cut) for cut in cuts)
    return min(sum(((run - run.mean()) ** 2).sum() for run in each) for each in runs)


@pytest.mark.parametrize("initial", ["linear", "density", "random"])
def test_centroids_are_means_of_what_is_nearest(initial):
    values = RNG.normal(size=500)
    centroids = cluster(values, 8, initial, 1)
    assert len(centroids) == 8
    assert (np.diff(centroids) > 0).all()
    codes = np.abs(values[:, None] - centroids).argmin(axis=1)
    assert (codes == nearest(values, centroids)).all()
    assert np.allclose(centroids, [values[codes == code].mean() for code in range(8)])


@pytest.mark.parametrize("initial", ["linear", "density"])
def test_small_sets_come_near_the_optimum(initial):
    ratios = []
    for seed in range(20):
        values = np.random.default_rng(seed).normal(size=12)
        ratios.append(error(values, cluster(values, 3, initial, 0)) / best_error(values, 3))
    assert min(ratios) >= 1 - 1e-9
    assert np.median(ratios) < 1.1


def test_as_good_as_scikit_learn():
    values = RNG.standard_t(4, 3000)
    theirs = KMeans(16, n_init=3, random_state=0).fit(values[:, None]).inertia_
    ours = min(error(values, cluster(values, 16, initial, 0)) for initial in ("linear", "density", "random"))
    assert ours < 1.05 * theirs


def test_linear_begins_evenly_and_keeps_far_values_apart():
    values = np.concatenate([RNG.normal(size=10_000), [40.0]])
    assert cluster(values, 8, "linear", 0)[-1] == 40.0


def test_no_entry_is_left_empty():
    values = np.concatenate([RNG.normal(size=1000) * 1e-3, [-5.0, 5.0]])
    centroids = cluster(values, 32, "linear", 0)
    assert len(np.unique(nearest(values, centroids))) == 32


@pytest.mark.parametrize("values", [[], [1.5], [2.0, 2.0, 2.0], [-1.0, 1.0, 1.0]])
def test_few_values_are_their_own_centroids(values):
    array = np.array(values, np.float64)
    assert cluster(array, 4, "linear", 0).tolist() == sorted(set(values))


def test_vectors():
    corners = np.array([[0.0, 0.0], [1.0, 5.0], [9.0, 2.0]])
    vectors = corners[RNG.integers(0, 3, 200)] + RNG.normal(size=(200, 2)) * 0.01
    book, numbers = cluster_vectors(vectors, 3, 0)
    assert np.abs(book[numbers] - vectors).max() < 0.1
    few, exact = cluster_vectors(corners[[0, 2, 2]], 4, 0)
    assert (few[exact] == corners[[0, 2, 2]]).all()


def sharing(**changes):
    given = {
        "entries": 4,
        "initial": "linear",
        "vector": 1,
        "group": None,
        "keep_zeros": True,
        "rate": 0.0,
        "seed": 0,
    }
    return Sharing(**{**given, **changes})


@settings(deadline=None)
@given(
    zeros=st.sampled_from([0, 1, 50, 5000]),
    rate=st.sampled_from([1e-4, 0.01, 0.1, 1.0, 30.0]),
    entries=st.integers(2, 20),
    seed=st.integers(0, 99),
)
def test_by_rate_every_value_is_where_error_and_bits_cost_least(zeros, rate, entries, seed):
    values = np.random.default_rng(seed).laplace(size=300)
    centroids, borders = cluster_by_rate(values, entries, "linear", 0, zeros=zeros, rate=rate)
    assert len(centroids) <= entries
    assert (np.diff(centroids) > 0).all()
    codes = within(values, borders)
    counts = np.bincount(codes, minlength=len(centroids)) + np.where(centroids == 0, zeros, 0)
    cost = (values[:, None] - centroids) ** 2 - rate * np.log2(counts / counts.sum())
    assert np.allclose(cost.min(axis=1), cost[np.arange(300), codes])
    for code, centroid in enumerate(centroids):
        if zeros == 0 or centroid != 0:
            assert np.isclose(centroid, values[codes == code].mean())


def test_a_higher_rate_gives_fewer_bits_and_more_error():
    weight = RNG.laplace(size=(100, 50)).astype(np.float32)
    weight[RNG.random(weight.shape) < 0.8] = 0
    bits, errors, zeros = [], [], []
    for rate in (0.01, 0.1, 0.5):
        book = learn_codebook(weight, 0, sharing(entries=16, rate=rate))
        assert isinstance(book, Codebook)
        decoded = book.decoded().reshape(weight.shape)
        assert not decoded[weight == 0].any()
        bits.append(book.entropy())
        errors.append(((weight - decoded) ** 2).sum())
        zeros.append((decoded == 0).sum())
    assert bits == sorted(bits, reverse=True)
    assert errors == sorted(errors)
    assert (weight == 0).sum() <= zeros[0] < zeros[1] < zeros[2]


@settings(deadline=None, max_examples=60)
@given(
    shape=st.sampled_from([(4, 6), (6, 4, 2, 2), (8,), (3, 4)]),
    group=st.sampled_from([None, 1, 2, 3]),
    vector=st.sampled_from([1, 2, 4]),
    rate=st.sampled_from([0.0, 0.02]),
    zeros=st.floats(0, 1),
    axis=st.integers(0, 1),
    seed=st.integers(0, 99),
)
def test_every_weight_is_its_shared_value(shape, group, vector, rate, zeros, axis, seed):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=shape).astype(np.float32)
    weight[rng.random(shape) < zeros] = 0
    axis = min(axis, len(shape) - 1)
    book = learn_codebook(
        weight, axis, sharing(group=group, vector=vector, rate=rate if vector == 1 else 0.0)
    )
    if isinstance(book, str):
        assert "vectors" in book
        return
    decoded = book.decoded().reshape(shape)
    assert book.entries <= 4
    assert book.indices.max() < book.entries
    if vector == 1:
        assert ((decoded == 0) >= (weight == 0)).all()
    channels = np.moveaxis(decoded, axis, 0).reshape(shape[axis], -1)
    for start in range(0, shape[axis], group or shape[axis]):
        together = channels[start : start + (group or shape[axis])]
        assert len(np.unique(together)) <= 4 * vector


def test_the_entropy_is_of_indices():
    book = learn_codebook(np.array([0, 0, 0, 0, 1, 1, 2, 3], np.float32), 0, sharing())
    assert isinstance(book, Codebook)
    assert book.entropy() == pytest.approx(1.75)
    assert book.bits == 2
