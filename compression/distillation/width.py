"""Makes a student narrower: in every channel group the units with the smallest L1 norms leave."""

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from compression.channel_pruning.scores import l1, magnitude
from compression.errors import NotApplicable
from compression.graph.channels import Group, cut, find_groups


def narrow(model: ir.Model, share: float, *, untouched: Collection[str] = ()) -> Mapping[str, int]:
    """Keeps `share` of the units of each group, in place; gives how many left by group.

    A unit's score is the sum of |w| (Li et al. 2017, arXiv:1608.08710) over the weights that make it and those that
    read it, each relative to the mean of its layer, so that layers of a group count alike.

    Args:
        model: the student.
        share: of the units that stay, rounded up to what the group allows.
        untouched: names of layers that must not change.

    Raises:
        NotApplicable: no group can be narrowed, whether or not its layers are `untouched`.
    """
    grouping = find_groups(model)
    doomed: dict[str, tuple[int, ...]] = {}
    crossed: set[str] = set()
    for group in grouping.groups:
        if group.id in crossed or not set(group.layers).isdisjoint(untouched):
            continue
        units = _smallest(group, share)
        if units:
            doomed[group.id] = units
            crossed.update(group.crosses)
    if not doomed and not any(set(group.layers).intersection(untouched) for group in grouping.groups):
        reasons = "; ".join(f"{lock.layer}: {lock.reason}" for lock in grouping.locked[:3])
        raise NotApplicable(
            f"no channels can leave{': ' + reasons if reasons else ''}",
            where="derive.width",
            hint="derive the student by depth, or upload one",
        )
    if doomed:
        cut(model, doomed)
    return {name: len(units) for name, units in doomed.items()}


def _smallest(group: Group, share: float) -> tuple[int, ...]:
    stay = -(-max(round(share * group.size), 1) // group.multiple) * group.multiple
    if stay >= group.size:
        return ()
    order = np.argsort(magnitude(group, l1), kind="stable")
    return tuple(sorted(int(unit) for unit in order[: group.size - stay]))
