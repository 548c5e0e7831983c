"""Residual blocks of a graph, x + f(x): finding them, and letting go of f."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from compression.graph.operators import DEFAULT_DOMAINS

WEIGHTY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Einsum", "Attention"})
"""A block computes with one of these; Add(x, c * x^3) is an activation and no block."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """`joint` = Add(x, f(x)), where x is its input at `place`; `body` holds the nodes of f in graph order."""

    joint: ir.Node
    place: int
    body: tuple[ir.Node, ...]

    @property
    def entry(self) -> ir.Value:
        """x, as it is now: other blocks may have left the graph before this one."""
        value = self.joint.inputs[self.place]
        assert value is not None
        return value

    @property
    def name(self) -> str:
        """The first layer of its body."""
        return next((node.name or "" for node in self.body if _is_weighty(node)), self.joint.name or "")


def find_blocks(graph: ir.Graph) -> tuple[Block, ...]:
    """All residual blocks in graph order. A block may lie inside another's body."""
    places = {node: index for index, node in enumerate(graph)}
    found = (_block(node, places) for node in places if _is_sum(node))
    return tuple(block for block in found if block is not None)


def remove_block(model: ir.Model, block: Block) -> None:
    """Lets whatever reads x + f(x) read x, in place, and drops what nothing needs then."""
    from onnx_ir.passes import common

    ir.convenience.replace_all_uses_with(block.joint.outputs[0], block.entry)
    common.RemoveUnusedNodesPass()(model)


def _block(joint: ir.Node, places: dict[ir.Node, int]) -> Block | None:
    """Either input may be x; it is where the other one comes from it."""
    for place in (0, 1):
        entry, branch = joint.inputs[place], joint.inputs[1 - place]
        if entry is None or branch is None or entry is branch or joint.outputs[0].is_graph_output():
            continue
        body = _between(entry, branch, places)
        if any(_is_weighty(node) for node in body) and _keeps_shape(entry, joint.outputs[0]):
            return Block(joint=joint, place=place, body=body)
    return None


def _between(entry: ir.Value, branch: ir.Value, places: dict[ir.Node, int]) -> tuple[ir.Node, ...]:
    """The nodes on the ways from `entry` to `branch`; empty where there is none."""
    producer = entry.producer()
    first = places.get(producer, -1) if producer is not None else -1
    seen: set[ir.Node] = set()
    waiting = [branch.producer()]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen or places.get(node, -1) <= first:
            continue
        seen.add(node)
        waiting.extend(value.producer() for value in _read(node) if value is not entry)
    return _downstream(entry, sorted(seen, key=lambda node: places[node]))


def _downstream(entry: ir.Value, nodes: Sequence[ir.Node]) -> tuple[ir.Node, ...]:
    reached = {entry}
    kept = []
    for node in nodes:
        if reached.intersection(_read(node)):
            reached.update(node.outputs)
            kept.append(node)
    return tuple(kept)


def _read(node: ir.Node) -> Iterator[ir.Value]:
    yield from (value for value in node.inputs if value is not None)


def _keeps_shape(entry: ir.Value, result: ir.Value) -> bool:
    """Whether the sum is known to be no larger than x: nothing is broadcast."""
    return entry.shape is not None and result.shape is not None and list(entry.shape) == list(result.shape)


def _is_sum(node: ir.Node) -> bool:
    return node.op_type == "Add" and node.domain in DEFAULT_DOMAINS and len(node.inputs) == 2


def _is_weighty(node: ir.Node) -> bool:
    return node.op_type in WEIGHTY
