"""Which units leave: from scores and a share or a threshold, with counts that the runtime likes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, lcm

import numpy as np

from compression.channel_pruning.scores import Scores
from compression.channel_pruning.wish import Scope
from compression.graph.channels import Doomed, Group

FEW = 4
"""A group that would be left with fewer multiples of `round_to` than this is rounded more finely."""


@dataclass(frozen=True, kw_only=True)
class Chooser:
    """What does not depend on how much leaves."""

    groups: Sequence[Group]
    scores: Mapping[str, Scores]
    scope: Scope
    max_sparsity: float
    round_to: int

    def by_share(self, share: float) -> Doomed:
        """`share` of the units leave: of each group, or of all together, the lowest scores first."""
        if self.scope == "layer":
            return self._doomed({group.id: (1 - share) * group.size for group in self.groups})
        return self.by_threshold(self._level(share))

    def by_threshold(self, threshold: float) -> Doomed:
        """Units with scores below it leave."""
        stay = {group.id: float(np.sum(self.scores[group.id] >= threshold)) for group in self.groups}
        return self._doomed(stay)

    def _level(self, share: float) -> float:
        """The threshold below which this share of all units lies; a group gives no more than it may."""
        found = []
        for group in self.groups:
            able = int(self.max_sparsity * group.size)
            found.append(np.sort(self.scores[group.id])[:able])
        ranked = np.sort(np.concatenate(found))
        wanted = round(share * sum(group.size for group in self.groups))
        return float(ranked[wanted]) if wanted < len(ranked) else float("inf")

    def _doomed(self, stay: Mapping[str, float]) -> Doomed:
        counts = {group.id: self._rounded(group, stay[group.id]) for group in self.groups}
        return {
            group.id: self._lowest(group, group.size - counts[group.id])
            for group in self.groups
            if counts[group.id] < group.size
        }

    def _rounded(self, group: Group, stay: float) -> int:
        """The nearest count that the group allows and the runtime likes; all of them where none is below."""
        step = lcm(step_of(group, self.round_to), group.multiple)
        least = ceil(round((1 - self.max_sparsity) * group.size, 6) / step) * step
        nearest = max(round(stay / step) * step, least, step)
        return min(nearest, group.size)

    def _lowest(self, group: Group, count: int) -> tuple[int, ...]:
        order = np.argsort(self.scores[group.id], kind="stable")
        return tuple(sorted(int(unit) for unit in order[:count]))


def step_of(group: Group, round_to: int) -> int:
    """What the count of a group's units is a multiple of: heads are counted one by one, and small groups finely."""
    step = round_to if group.unit != "head" else 1
    while step > 1 and group.size < FEW * step:
        step = (step + 1) // 2
    return step


def apart(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Of groups that cut the same axes across, whole heads where there are some, else the first."""
    taken: list[Group] = []
    crossed: set[str] = set()
    for group in sorted(groups, key=lambda group: group.unit != "head" or group.size <= group.multiple):
        if group.id not in crossed:
            taken.append(group)
            crossed.update(group.crosses)
    order = {group.id: number for number, group in enumerate(groups)}
    return tuple(sorted(taken, key=lambda group: order[group.id]))
