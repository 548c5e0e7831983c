"""95% confidence intervals: of shares, of paired changes, of medians, and by bootstrap."""

from collections.abc import Callable
from math import comb, exp, sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit  # type: ignore[import-untyped]

from compression.measurements import Interval

Z95 = 1.959963984540054
"""The 97.5% point of the standard normal distribution."""

RESAMPLES = 1000
MAX_DRAWS = 20_000_000
"""Bounds resamples x groups: a bootstrap over very many samples takes fewer resamples."""

Array = npt.NDArray[np.float64]


def wilson(hits: int, total: int) -> Interval:
    """Wilson's score interval of a share (Wilson 1927): honest for few samples and near 0 and 1.

    (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    """
    share, z2 = hits / total, Z95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 * sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return Interval(
        value=share, low=min(max(centre - half, 0.0), share), high=max(min(centre + half, 1.0), share)
    )


def paired_share_change(lost: int, gained: int, total: int) -> Interval:
    """Change of a share on the same samples: `lost` went from right to wrong, `gained` the other way.

    Bonett and Price (2012), the adjusted Wald interval of McNemar's setting: with p = (count + 1) / (n + 2),
    d +- z sqrt((p_lost + p_gained - (p_gained - p_lost)^2) / (n + 2)). It has a width even where no sample
    changed.
    """
    p_lost, p_gained = (lost + 1) / (total + 2), (gained + 1) / (total + 2)
    centre = p_gained - p_lost
    half = Z95 * sqrt((p_lost + p_gained - centre**2) / (total + 2))
    change = (gained - lost) / total
    return Interval(
        value=change, low=min(max(centre - half, -1.0), change), high=max(min(centre + half, 1.0), change)
    )


def median_interval(values: Array) -> Interval:
    """The median with its distribution-free interval between order statistics (the sign test turned round).

    The k-th smallest and k-th largest of n values, with the largest k for which P(Binomial(n, 1/2) < k) <=
    2.5%. Five values or fewer give their whole range, which then covers less than 95%.
    """
    ordered = np.sort(values)
    k = max(_sign_test_rank(len(ordered)), 1)
    return Interval(value=float(np.median(ordered)), low=float(ordered[k - 1]), high=float(ordered[-k]))


def _sign_test_rank(n: int) -> int:
    below, k, ways = 0, 0, 2**n
    while (below + comb(n, k)) / ways <= 0.025:
        below += comb(n, k)
        k += 1
    return k


def geometric_interval(values: Array, centre: float) -> Interval:
    """Student's interval of the geometric mean of positive values, widened to hold `centre`.

    exp(mean log v +- t s / sqrt(n)), t the 97.5% point of Student's distribution on n - 1 degrees of freedom.
    """
    logs = np.log(values)
    half = float(stdtrit(len(logs) - 1, 0.975)) * float(logs.std(ddof=1)) / sqrt(len(logs))
    mean = float(logs.mean())
    low, high = exp(mean - half), exp(mean + half)
    return Interval(value=centre, low=min(low, centre), high=max(high, centre))


def bootstrap(value: float, draws: Array) -> Interval:
    """The percentile interval of resampled values, widened to hold the value itself."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value))


def resampled(
    counts: npt.NDArray[np.int64], statistic: Callable[[Array], Array], seed: int, chunk: int = 2_000_000
) -> Array:
    """A statistic over bootstrap resamples of groups of equal samples.

    `counts` [groups] holds how many samples each group stands for: drawing n samples with replacement is
    drawing multinomial weights over groups. `statistic` maps weights [resamples, groups] to values
    [resamples, ...]. The same seed gives the same resamples, so that two models' statistics come out paired.
    """
    total, groups = int(counts.sum()), len(counts)
    resamples = min(RESAMPLES, max(MAX_DRAWS // groups, 100))
    rng = np.random.default_rng(seed)
    rows = max(chunk // groups, 1)
    share = counts / total
    parts = [
        statistic(rng.multinomial(total, share, size=min(rows, resamples - start)).astype(np.float64))
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(parts)
