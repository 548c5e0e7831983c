"""Finds the groups of a model: reads its graph until nothing more is asked for, and sorts the units."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compression.graph.channels.group import Grouping
from compression.graph.channels.locked import locked_layers
from compression.graph.channels.reading import Reading
from compression.graph.channels.rules import RULES
from compression.graph.channels.slots import Builder
from compression.graph.channels.units import Place, Segments, Units, refined
from compression.graph.shapes import infer_shapes

ROUNDS = 40

Signature = tuple[int, ...]
"""The blocks that a unit takes part in, by index, one for each of its ids."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """A reading, the root of every unit, and by group the roots of its units in order."""

    reading: Reading
    roots: np.ndarray
    members: Mapping[str, np.ndarray]
    grouping: Grouping


def find_groups(model: ir.Model) -> Grouping:
    """What can be cut from the model, and what cannot and why.

    The model keeps its meaning; shapes of values in between are filled in. Functions are not looked into.

    Source: dependency groups as in DepGraph (Fang et al., arXiv:2301.12900), here on axes that are products
    of factors.
    """
    return analyse(model).grouping


def analyse(model: ir.Model) -> Analysis:
    infer_shapes(model)
    reading = _read(model)
    roots = reading.units.roots()
    builder = Builder(reading, roots)
    members: dict[str, np.ndarray] = {}
    groups = []
    for found in _sorted_units(reading.units, roots):
        group = builder.build(found, taken=members)
        if group is not None:
            groups.append(group)
            members[group.id] = found
    groups = builder.ordered(groups, members)
    locked = locked_layers(reading, roots, np.concatenate([[], *members.values()]).astype(np.int64))
    return Analysis(
        reading=reading,
        roots=roots,
        members=members,
        grouping=Grouping(groups=tuple(groups), locked=locked),
    )


def _read(model: ir.Model) -> Reading:
    """Reads anew as long as axes turn out to be products of more factors than was known."""
    structure: dict[Place, Segments] = {}
    for attempt in range(ROUNDS + 1):
        units = Units(structure=structure, settled=attempt == ROUNDS)
        reading = Reading(model=model, rules=RULES, units=units)
        reading.read()
        if not units.demands:
            break
        structure = refined(structure, units.demands)
    return reading


def _sorted_units(units: Units, roots: np.ndarray) -> list[np.ndarray]:
    """Roots of the units that may leave, those together that take the same factors of the same tensors."""
    stays = np.zeros(units.count, dtype=bool)
    stays[roots[list(units.locks)]] = True
    stored = [index for index, block in enumerate(units.blocks) if block.place.value.producer() is None]
    ids = [np.arange(units.blocks[i].start, units.blocks[i].start + units.blocks[i].size) for i in stored]
    if not ids:
        return []
    blocks = np.concatenate([np.full(len(part), index) for index, part in zip(stored, ids, strict=True)])
    found = roots[np.concatenate(ids)]
    free = ~stays[found]
    found, blocks = found[free], blocks[free]
    if not found.size:
        return []
    order = np.lexsort((blocks, found))
    found, blocks = found[order], blocks[order]
    starts = np.flatnonzero(np.diff(found, prepend=-1))
    alike: dict[Signature, list[int]] = defaultdict(list)
    for start, stop in zip(starts, [*starts[1:], len(found)], strict=True):
        alike[tuple(blocks[start:stop].tolist())].append(int(found[start]))
    return [np.asarray(members, dtype=np.int64) for members in alike.values()]
