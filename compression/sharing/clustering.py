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
        edges = sums.edges(_middles(centroids))
        moved = np.sort(sums.means(edges, centroids))
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids


def cluster_by_rate(
    values: Floats, entries: int, initial: Initial, seed: int, *, zeros: int, rate: float
) -> tuple[Floats, Floats]:
    """Entropy-constrained k-means (Chou, Lookabaugh and Gray 1989, for scalars): centroids, and where each begins.

    A value v belongs to the centroid c with the least (v - c)^2 + rate * bits(c), an entry's bits being -log2 of its
    share; so rare entries must earn their bits, and those that do not vanish.

    Args:
        values: (n,), finite.
        zeros: how many exact zeros there are beside them. Where there are any, 0 is one of the centroids, keeps them
            and takes what is cheaper there.
        entries: centroids at most, zero among them.
        initial: see `cluster`.
        seed: of `random`.
        rate: squared error that a bit is worth.

    Returns:
        Ascending centroids (k,), and (k - 1,) where the cells of all but the first begin.
    """
    sums = _Sums(np.sort(values))
    centroids = cluster(values, entries - bool(zeros), initial, seed)
    pinned = np.zeros(len(centroids), bool)
    if zeros:
        place = int(np.searchsorted(centroids, 0.0))
        centroids, pinned = np.insert(centroids, place, 0.0), np.insert(pinned, place, True)
    borders = _middles(centroids)
    edges = sums.edges(borders)
    for _ in range(ROUNDS):
        counts = np.diff(edges) + zeros * pinned
        used = counts > 0
        centroids = np.where(pinned, 0.0, sums.means(edges, centroids))[used]
        bits = -np.log2(counts[used] / counts.sum())
        kept, borders = _cheapest(centroids, rate * bits)
        centroids, pinned = centroids[kept], pinned[used][kept]
        moved = sums.edges(borders)
        if np.array_equal(moved, edges):
            break
        edges = moved
    return centroids, borders


def nearest(values: Floats, centroids: Floats) -> NDArray[np.int64]:
    """For each value the number of the centroid that it is nearest to; `centroids` ascend."""
    return within(values, _middles(centroids))


def within(values: Floats, borders: Floats) -> NDArray[np.int64]:
    """For each value the number of the cell that it lies in; a border belongs to the cell that it begins."""
    return np.searchsorted(borders, values, side="right").astype(np.int64)


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


def _cheapest(centroids: Floats, surcharge: Floats) -> tuple[list[int], Floats]:
    """Which centroids c, with what each costs beside (v - c)^2, are cheapest for some v, and from where on.

    Without v^2, which all have, the costs are lines in v: wanted is their lower envelope.
    """
    kept: list[int] = []
    starts: list[float] = []
    for new in range(len(centroids)):
        start = -np.inf
        while kept:
            start = _crossing(centroids, surcharge, kept[-1], new)
            if start > starts[-1]:
                break
            kept.pop()
            starts.pop()
            start = -np.inf
        kept.append(new)
        starts.append(start)
    return kept, np.array(starts[1:])


def _crossing(centroids: Floats, surcharge: Floats, left: int, right: int) -> float:
    gap, extra = centroids[right] - centroids[left], surcharge[right] - surcharge[left]
    if gap == 0:
        return float(np.copysign(np.inf, extra))
    return float((centroids[left] + centroids[right] + extra / gap) / 2)


def _middles(centroids: Floats) -> Floats:
    return (centroids[1:] + centroids[:-1]) / 2


class _Sums:
    """Means and squared errors of runs of sorted values, from sums of all before."""

    def __init__(self, ordered: Floats) -> None:
        self.ordered = ordered
        self.first = np.concatenate([[0.0], np.cumsum(ordered)])
        self.second = np.concatenate([[0.0], np.cumsum(ordered**2)])

    def edges(self, borders: Floats) -> NDArray[np.int64]:
        """Where each centroid's run begins, and the end; `borders` are the least values of all but the first."""
        inner = np.searchsorted(self.ordered, borders, side="left")
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
