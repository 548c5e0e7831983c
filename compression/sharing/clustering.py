"""k-means of weights: scalars by Lloyd's algorithm on sorted values, vectors by scikit-learn's."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Initial = Literal["linear", "density", "random"]
ROUNDS = 10_000


def cluster(values: Floats, entries: int, initial: Initial, seed: int) -> Floats:
    """Centroids of k-means in ascending order, at most `entries`; fewer where values are fewer.

    Each value belongs to the nearest centroid (the upper one of two as near), each centroid is the mean of its values
    (Lloyd 1982). A centroid that loses all its values is put into the cluster with the largest squared error.

    Args:
        values: (n,), finite.
        entries: k.
        initial: `linear` spaces centroids evenly from the lowest to the highest value, `density` evenly over the
            values' ranks, `random` draws from them (Han et al. 2016, arXiv:1510.00149, section 3.2).
        seed: of `random`.
    """
    ordered = np.sort(values)
    distinct = ordered[np.append(True, np.diff(ordered) > 0)] if ordered.size else ordered
    if distinct.size <= entries:
        return distinct
    sums = _Sums(ordered)
    centroids = _start(ordered, distinct, entries, initial, seed)
    for _ in range(ROUNDS):
        edges = sums.edges(centroids)
        moved = np.sort(sums.means(edges, centroids))
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids


def nearest(values: Floats, centroids: Floats) -> NDArray[np.int64]:
    """For each value the number of the centroid that it is nearest to; `centroids` ascend."""
    return np.searchsorted(_middles(centroids), values, side="right").astype(np.int64)


def cluster_vectors(vectors: Floats, entries: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """Centroids (k, d) and the number of each vector's; product quantization (Jegou et al. 2011) of rows.

    Started by k-means++ (Arthur and Vassilvitskii 2007), on one thread, so that the same seed gives the same bits.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    distinct = np.unique(vectors, axis=0)
    if len(distinct) <= entries:
        return distinct, _rows(vectors, distinct)
    with threadpool_limits(limits=1):
        found = KMeans(entries, n_init=1, random_state=seed, max_iter=50).fit(vectors)
    return np.asarray(found.cluster_centers_, np.float64), found.labels_.astype(np.int64)


def _rows(vectors: Floats, distinct: Floats) -> NDArray[np.int64]:
    _, numbers = np.unique(np.concatenate([distinct, vectors]), axis=0, return_inverse=True)
    return np.asarray(numbers, np.int64).reshape(-1)[len(distinct) :]


def _start(ordered: Floats, distinct: Floats, entries: int, initial: Initial, seed: int) -> Floats:
    if initial == "linear":
        return np.linspace(ordered[0], ordered[-1], entries)
    if initial == "density":
        shares = (np.arange(entries) + 0.5) / entries
        return np.unique(ordered[(shares * ordered.size).astype(np.int64)])
    return np.sort(np.random.default_rng(seed).choice(distinct, entries, replace=False))


def _middles(centroids: Floats) -> Floats:
    return (centroids[1:] + centroids[:-1]) / 2


class _Sums:
    """Means and squared errors of runs of sorted values, from sums of all before."""

    def __init__(self, ordered: Floats) -> None:
        self.ordered = ordered
        self.first = np.concatenate([[0.0], np.cumsum(ordered)])
        self.second = np.concatenate([[0.0], np.cumsum(ordered**2)])

    def edges(self, centroids: Floats) -> NDArray[np.int64]:
        """Where each centroid's run begins, and the end."""
        inner = np.searchsorted(self.ordered, _middles(centroids), side="left")
        return np.concatenate([[0], inner, [self.ordered.size]])

    def means(self, edges: NDArray[np.int64], centroids: Floats) -> Floats:
        counts = np.diff(edges)
        means = np.where(counts > 0, np.diff(self.first[edges]) / np.maximum(counts, 1), centroids)
        errors = np.diff(self.second[edges]) - counts * means**2
        for empty in np.flatnonzero(counts == 0):
            worst = int(np.argmax(errors))
            means[empty] = means[worst] + np.sqrt(max(errors[worst], 0.0) / max(counts[worst], 1))
            errors[worst] = 0.0
        return means
