"""Structured pruning on ONNX graphs: which units depend on each other, and taking them out.

Every axis of every value is a product of factors (`labels`), and operators say how the axes of their inputs and
outputs belong together (`rules`). Units tied on the way form groups (`grouping`); `cut` removes some, and `prove`
holds the result against the original in which the same units are silent.
"""

from compression.graph.channels.cutting import cut
from compression.graph.channels.group import Doomed, Group, Grouping, Locked, Slot
from compression.graph.channels.grouping import find_groups
from compression.graph.channels.proving import TOLERANCE, prove, rounding
from compression.graph.channels.silencing import silence

__all__ = [
    "TOLERANCE",
    "Doomed",
    "Group",
    "Grouping",
    "Locked",
    "Slot",
    "cut",
    "find_groups",
    "prove",
    "rounding",
    "silence",
]
