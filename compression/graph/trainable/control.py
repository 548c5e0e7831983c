"""Control flow and sequences. Bodies are callables among the node's attributes; a sequence is a list.

Gradients flow through the branch that is taken and through every pass of a loop; not through the condition or
the number of passes themselves.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from compression.graph.trainable.node import Node, Table, Value, axis_of, integers

MAX_PASSES = 1_000_000


def if_(node: Node, condition: Tensor) -> tuple[Value, ...]:
    branch: Callable[[], tuple[Value, ...]] = node.attributes[
        "then_branch" if condition.item() else "else_branch"
    ]
    return branch()


def loop(
    node: Node, trips: Tensor | None = None, condition: Tensor | None = None, *carried: Value
) -> tuple[Value, ...]:
    """Runs the body with the number of the pass, the condition and what is carried; stacks what it scans."""
    body: Callable[..., tuple[Value, ...]] = node.attributes["body"]
    state = list(carried)
    going = condition if condition is not None else torch.tensor(True)
    scanned: list[list[Tensor]] = []
    limit = MAX_PASSES if trips is None else int(trips)
    for number in range(limit):
        if not going.item():
            break
        going, *results = body(torch.tensor(number), going, *state)
        state = results[: len(state)]
        scanned.append(results[len(state) :])
    return (*state, *_stacked(scanned, node.outputs - len(state)))


def _stacked(passes: list[list[Tensor]], count: int) -> list[Tensor]:
    if not passes:
        return [torch.zeros(0) for _ in range(count)]
    return [torch.stack(list(items)) for items in zip(*passes, strict=True)]


def scan(node: Node, *inputs: Value) -> tuple[Value, ...]:
    """Goes along an axis of the scanned inputs. Opset 8 has a batch axis before everything."""
    if node.opset < 9:
        return _scan_batches(node, *inputs[1:])
    return _scan(node, list(inputs))


def _scan(node: Node, inputs: list[Value]) -> tuple[Value, ...]:
    body: Callable[..., tuple[Value, ...]] = node.attributes["body"]
    count = node.attributes["num_scan_inputs"]
    state, given = inputs[:-count], inputs[-count:]
    axes = node.attributes.get("scan_input_axes", (0,) * count)
    turned = node.attributes.get("scan_input_directions", (0,) * count)
    parts = [
        list(x.unbind(axis))[:: -1 if back else 1] for x, axis, back in zip(given, axes, turned, strict=True)
    ]
    passes = []
    for items in zip(*parts, strict=True):
        results = body(*state, *items)
        state = list(results[: len(state)])
        passes.append(results[len(state) :])
    return (*state, *_scanned(node, passes))


def _scanned(node: Node, passes: list[tuple[Value, ...]]) -> list[Tensor]:
    count = len(passes[0]) if passes else 0
    axes = node.attributes.get("scan_output_axes", (0,) * count)
    turned = node.attributes.get("scan_output_directions", (0,) * count)
    return [
        torch.stack(items[:: -1 if back else 1], axis_of(axis, items[0].ndim + 1))
        for items, axis, back in zip(zip(*passes, strict=True), axes, turned, strict=True)
    ]


def _scan_batches(node: Node, *inputs: Tensor) -> tuple[Value, ...]:
    rows = [_scan(node, [item[row] for item in inputs]) for row in range(inputs[0].shape[0])]
    return tuple(torch.stack(list(items)) for items in zip(*rows, strict=True))


def sequence_construct(node: Node, *inputs: Tensor) -> tuple[list[Tensor]]:
    return (list(inputs),)


def sequence_empty(node: Node) -> tuple[list[Tensor]]:
    return ([],)


def sequence_at(node: Node, sequence: list[Tensor], position: Tensor) -> Tensor:
    return sequence[int(position)]


def sequence_insert(
    node: Node, sequence: list[Tensor], item: Tensor, position: Tensor | None = None
) -> tuple[list[Tensor]]:
    place = len(sequence) if position is None else axis_of(int(position), len(sequence))
    return ([*sequence[:place], item, *sequence[place:]],)


def sequence_erase(node: Node, sequence: list[Tensor], position: Tensor | None = None) -> tuple[list[Tensor]]:
    place = axis_of(-1 if position is None else int(position), len(sequence))
    return ([*sequence[:place], *sequence[place + 1 :]],)


def sequence_length(node: Node, sequence: list[Tensor]) -> Tensor:
    return torch.tensor(len(sequence))


def sequence_map(node: Node, sequence: list[Tensor], *others: Value) -> tuple[list[Value], ...]:
    """Calls the body with each entry; other sequences go along entry by entry, tensors stay."""
    body: Callable[..., tuple[Value, ...]] = node.attributes["body"]
    results = []
    for place, item in enumerate(sequence):
        results.append(body(item, *(other[place] if isinstance(other, list) else other for other in others)))
    return tuple(list(items) for items in zip(*results, strict=True)) or ([],) * node.outputs


def split_to_sequence(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[list[Tensor]]:
    """Into parts of given sizes, or of one size; by default of one entry each, whose axis then may go."""
    axis = axis_of(node.attributes.get("axis", 0), x.ndim)
    if sizes is None:
        parts = x.unbind(axis) if not node.attributes.get("keepdims", 1) else torch.split(x, 1, axis)
    else:
        parts = torch.split(x, int(sizes) if sizes.ndim == 0 else integers(sizes), axis)
    return (list(parts),)


def concat_from_sequence(node: Node, sequence: list[Tensor]) -> Tensor:
    axis = node.attributes["axis"]
    return torch.stack(sequence, axis) if node.attributes.get("new_axis", 0) else torch.cat(sequence, axis)


def optional(node: Node, value: Value = None) -> tuple[Value]:
    return (value,)


def optional_get_element(node: Node, value: Value) -> tuple[Value]:
    return (value,)


def optional_has_element(node: Node, value: Value = None) -> Tensor:
    return torch.tensor(value is not None)


CONTROL: Table = {
    "ConcatFromSequence": concat_from_sequence,
    "If": if_,
    "Loop": loop,
    "Optional": optional,
    "OptionalGetElement": optional_get_element,
    "OptionalHasElement": optional_has_element,
    "Scan": scan,
    "SequenceAt": sequence_at,
    "SequenceConstruct": sequence_construct,
    "SequenceEmpty": sequence_empty,
    "SequenceErase": sequence_erase,
    "SequenceInsert": sequence_insert,
    "SequenceLength": sequence_length,
    "SequenceMap": sequence_map,
    "SplitToSequence": split_to_sequence,
}
