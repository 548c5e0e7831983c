"""Finds the groups of a model: reads its graph until nothing more is asked for, and sorts the units."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

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
"""The blocks of stored tensors and the pieces that a unit takes part in, by number, once for each of its ids."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """A reading, the root of every unit, and by group the roots of its units in order."""

    reading: Reading
    roots: np.ndarray
    members: Mapping[str, np.ndarray]
    grouping: Grouping


def find_groups(model: ir.Model, *, widths: bool = False) -> Grouping:
    """What can be cut from the model, and what cannot and why.

    The model keeps its meaning; shapes of values in between are filled in. Functions are not looked into.

    Args:
        model: to be looked at.
        widths: also units that LayerNormalization, RMSNormalization or a mean runs over, such as the width of
            a transformer. Once some of them leave, such statistics are others than those of the original with
            the units at zero: groups say so in `restates`, and `cut`, `silence` and `prove` must be told, too.

    Source: dependency groups as in DepGraph (Fang et al., arXiv:2301.12900), here on axes that are products
    of factors.
    """
    return analyse(model, widths).grouping


def analyse(model: ir.Model, widths: bool) -> Analysis:
    infer_shapes(model)
    reading = _read(model, widths)
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


def _read(model: ir.Model, widths: bool) -> Reading:
    """Reads anew as long as axes turn out to be products of more factors than was known."""
    structure: dict[Place, Segments] = {}
    for attempt in range(ROUNDS + 1):
        units = Units(structure=structure, settled=attempt == ROUNDS)
        reading = Reading(model=model, rules=RULES, units=units, widths=widths)
        reading.read()
        if not units.demands:
            break
        structure = refined(structure, units.demands)
    return reading


def _sorted_units(units: Units, roots: np.ndarray) -> list[np.ndarray]:
    """Roots of the units that may leave, those together that take the same factors of the same tensors.

    Units that lie in different pieces of an axis do not go together either: one has to stay in each piece.
    """
    stays = np.zeros(units.count, dtype=bool)
    stays[roots[list(units.locks)]] = True
    blocks = [block for block in units.blocks if block.place.value.producer() is None]
    parts = [roots[block.start : block.start + block.size] for block in blocks]
    stored = np.zeros(units.count, dtype=bool)
    stored[np.concatenate([np.zeros(0, np.int64), *parts])] = True
    parts += [np.unique(roots[piece]) for piece in units.pieces]
    parts = [part[stored[part] & ~stays[part]] for part in parts]
    found = np.concatenate([np.zeros(0, np.int64), *parts])
    if not found.size:
        return []
    where = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    order = np.lexsort((where, found))
    found, where = found[order], where[order]
    starts = np.flatnonzero(np.diff(found, prepend=-1)).tolist()
    alike: dict[Signature, list[int]] = defaultdict(list)
    for start, stop in pairwise([*starts, len(found)]):
        alike[tuple(where[start:stop].tolist())].append(int(found[start]))
    return [np.asarray(members, dtype=np.int64) for members in alike.values() if len(members) > 1]
