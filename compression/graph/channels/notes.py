"""What rules note while they read: where units are made, summed over, or averaged; and why they give up."""

from dataclasses import dataclass

import onnx_ir as ir

from compression.graph.channels.labels import Label


class Unreadable(Exception):
    """A node's inputs or attributes are such that its rule does not hold; `why` completes "the node ..."."""

    def __init__(self, why: str = "has inputs or attributes that are not known") -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, kw_only=True, eq=False)
class Site:
    """An input that a node sums over along an axis."""

    node: ir.Node
    index: int
    axis: int
    rank: int
    label: Label


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """An output axis that a weight makes: its units as they are numbered on the weight."""

    node: ir.Node
    output: int
    axis: int
    label: Label


@dataclass(frozen=True, kw_only=True, eq=False)
class Restated:
    """A node that takes a statistic over an axis of its first input, and is let to take it over fewer."""

    node: ir.Node
    axis: int
    rank: int
    label: Label


def describe(node: ir.Node) -> str:
    return f"{node.op_type} {node.name!r}"
