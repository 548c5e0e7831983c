"""Stability scores: how far the outputs move when a unit is taken away, tried unit by unit."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression import runtime
from compression.channel_pruning.scores import Scores
from compression.graph.channels import Group, Slot
from compression.graph.constants import release
from compression.method import StepContext

Array = NDArray[Any]
Feeds = Mapping[str, Array]


def stability(
    model: ir.Model, groups: Sequence[Group], feeds: Feeds, context: StepContext
) -> Mapping[str, Scores]:
    """By group the relative change |y - y'| / |y| of the outputs without each unit, relative to the mean of all.

    A unit is away when the weights that read it hold zeros at its place; where nothing with weights reads it, when
    those that make it do. One inference on `feeds` for each unit. The model is as it was when this returns.
    """
    slots = {group.id: _places(group) for group in groups}
    stored = {slot.value.name or "": slot.value for own in slots.values() for slot in own}
    total, done = sum(group.size for group in groups), 0
    found = {group.id: np.zeros(group.size) for group in groups}
    with overridable(model, list(stored.values()), context) as session:
        before = _flat(runtime.run(session, feeds))
        norm = float(np.linalg.norm(before)) or 1.0
        for group in groups:
            arrays = _arrays(slots[group.id])
            for unit in range(group.size):
                away = _without(arrays, slots[group.id], unit)
                after = _flat(runtime.run(session, {**feeds, **away}))
                found[group.id][unit] = float(np.linalg.norm(after - before)) / norm
                done += 1
                context.report(done / total, f"taking away unit {done} of {total}")
    mean = float(np.concatenate(list(found.values())).mean()) or 1.0
    return {name: changes / mean for name, changes in found.items()}


@contextmanager
def overridable(model: ir.Model, values: Sequence[ir.Value], context: StepContext) -> Iterator[Any]:
    """A session that takes stored tensors as inputs, with what is stored as their defaults."""
    added = [value for value in values if not value.is_graph_input()]
    model.graph.inputs.extend(added)
    try:
        yield runtime.open_session(model, device=context.device, threads=context.threads)
    finally:
        for _ in added:
            model.graph.inputs.pop()


def _places(group: Group) -> tuple[Slot, ...]:
    readers = tuple(slot for slot in group.consumers if _is_initializer(slot))
    return readers or tuple(slot for slot in (*group.producers, *group.others) if _is_initializer(slot))


def _is_initializer(slot: Slot) -> bool:
    graph, tensor = slot.value.graph, slot.value.const_value
    named = isinstance(graph, ir.Graph) and slot.value.name in graph.initializers
    return named and tensor is not None and tensor.dtype.is_floating_point()


def _arrays(slots: Sequence[Slot]) -> dict[str, Array]:
    found = {}
    for slot in slots:
        tensor = slot.value.const_value
        if tensor is not None:
            found[slot.value.name or ""] = np.array(tensor.numpy())
            release(tensor)
    return found


def _without(arrays: Mapping[str, Array], slots: Sequence[Slot], unit: int) -> dict[str, Array]:
    changed = {name: array.copy() for name, array in arrays.items()}
    for slot in slots:
        changed[slot.value.name or ""].swapaxes(0, slot.axis)[slot.indices[unit]] = 0
    return changed


def _flat(outputs: Mapping[str, Any]) -> Array:
    arrays = [np.asarray(value) for value in outputs.values() if isinstance(value, np.ndarray)]
    floats = [array.reshape(-1).astype(np.float64) for array in arrays if array.dtype.kind == "f"]
    joined: Array = np.nan_to_num(np.concatenate([np.zeros(1), *floats]))
    return joined
