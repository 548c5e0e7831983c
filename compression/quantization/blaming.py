"""Finds the layers that spoil the outputs by trials of whole groups, split where the noise is."""

import time
from collections.abc import Callable, Sequence

Noise = Callable[[Sequence[str]], float]
"""Noise over signal of the worst output when only these layers are changed."""
_LITTLE = 0.1
"""Noise over signal up to which the noise of layers adds up, about."""
_NEGLIGIBLE = 1e-3


def share_noise(names: Sequence[str], noise: Noise, *, until: float) -> dict[str, float]:
    """What each layer adds to the outputs' noise, in as few trials as the noise has places.

    A group is tried as one and split in halves, the noisiest group always next: one half is tried, and the other
    gets the rest where the noise is little, or is tried too. The layers of a group share its noise where it is
    under a thousandth of all, and from `until` (of `time.monotonic`) on.
    """
    groups = [(noise(names), tuple(names))] if names else []
    done: list[tuple[float, tuple[str, ...]]] = []
    little = _NEGLIGIBLE * groups[0][0] if groups else 0.0
    while groups and max(groups)[0] > little and time.monotonic() < until:
        total, group = groups.pop(groups.index(max(groups)))
        if len(group) == 1:
            done.append((total, group))
            continue
        left, right = group[: len(group) // 2], group[len(group) // 2 :]
        taken = noise(left)
        rest = max(total - taken, 0.0) if total < _LITTLE else noise(right)
        groups += [(taken, left), (rest, right)]
    return {name: total / len(group) for total, group in (*done, *groups) for name in group}
