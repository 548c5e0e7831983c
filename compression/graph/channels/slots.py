"""Turns units that belong together into a group: its tensors, their roles, its name."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from compression.graph.channels.group import Group, Role, Slot, Unit
from compression.graph.channels.labels import Label, Rigid, positions, segment_size, vectors
from compression.graph.channels.notes import Made
from compression.graph.channels.reading import Reading
from compression.graph.channels.units import Place
from compression.graph.layer import layers

NEURON_LAYERS = frozenset(
    {"Gemm", "MatMul", "MatMulInteger", "Einsum", "LSTM", "GRU", "RNN", "Attention", "MultiHeadAttention"}
)


class Builder:
    """Knows of every stored axis which nodes make its units and whether it is summed over."""

    def __init__(self, reading: Reading, roots: np.ndarray) -> None:
        self._reading = reading
        self._roots = roots
        self._order = {node: index for index, node in enumerate(reading.nodes)}
        self._made = self._makers()
        self._summed = {place for label in reading.summed for place in self._places(vectors(label))}
        found = layers(reading.model)
        self._layer_order = {layer.name: index for index, layer in enumerate(found)}
        self._layers = {value: layer.name for layer in reversed(found) for value in layer.weights}
        self._heads = {int(root) for vector in reading.heads for root in roots[vector]}
        self._places_of_unit = self._index_places()

    def build(self, members: np.ndarray, taken: Container[str]) -> Group | None:
        """The group of these units; None where no layer makes them."""
        places = self._places_of_unit.get(int(members[0]), [])
        slots = list({_key(slot): slot for slot in (self._slot(place, members) for place in places)}.values())
        producers = tuple(slot for slot in slots if slot.role == "producer")
        consumers = tuple(slot for slot in slots if slot.role == "consumer")
        if not producers:
            return None
        makers = [made for place in places for made in self._made.get(place, ())]
        makers.sort(key=lambda made: self._order[made.node])
        names = {self._layers.get(slot.value, slot.value.name or "") for slot in slots}
        ordered = tuple(sorted(names, key=lambda name: self._layer_order.get(name, len(self._layer_order))))
        return Group(
            id=_free(makers[0].node.name or "" if makers else ordered[0], taken),
            size=len(members),
            producers=producers,
            consumers=consumers,
            others=tuple(slot for slot in slots if slot.role == "other"),
            activations=self._activations(makers, members),
            layers=ordered,
            unit=self._unit(makers, members),
            restates=self._restated(members),
        )

    def ordered(self, groups: Sequence[Group], members: Mapping[str, np.ndarray]) -> list[Group]:
        """In graph order of their first layers, with the groups that each of them crosses."""
        crossing = self._crossings(groups, members)
        found = [replace(group, crosses=tuple(crossing[group.id])) for group in groups]
        return sorted(found, key=lambda group: self._layer_order.get(group.layers[0], 0))

    def _makers(self) -> dict[Place, list[Made]]:
        found: dict[Place, list[Made]] = {}
        for made in self._reading.made:
            for place in self._places(vectors(made.label)):
                found.setdefault(place, []).append(made)
        return found

    def _places(self, found: Sequence[np.ndarray]) -> list[Place]:
        units = self._reading.units
        return [units.blocks[index].place for vector in found for index in units.blocks_of(vector)]

    def _index_places(self) -> dict[int, list[Place]]:
        """By the root of a unit the stored axes it lies on."""
        found: dict[int, dict[Place, None]] = {}
        for block in self._reading.units.blocks:
            if block.place.value.producer() is None:
                for root in self._roots[block.start : block.start + block.size].tolist():
                    found.setdefault(root, {})[block.place] = None
        return {root: list(places) for root, places in found.items()}

    def _slot(self, place: Place, members: np.ndarray) -> Slot:
        role: Role = "other"
        if place in self._made:
            role = "producer"
        elif place in self._summed:
            role = "consumer"
        indices = rows(self._reading.sources[place], self._roots, members)
        return Slot(value=place.value, axis=place.axis, indices=indices, role=role)

    def _activations(self, makers: Sequence[Made], members: np.ndarray) -> tuple[Slot, ...]:
        found: dict[tuple[ir.Value, int], Slot] = {}
        for made in makers:
            value = made.node.outputs[made.output] if made.output < len(made.node.outputs) else None
            labels = self._reading.labels.get(value) if value is not None and value.uses() else None
            if value is None or labels is None or made.axis >= len(labels):
                continue
            indices = rows(labels[made.axis], self._roots, members)
            if indices.size:
                found[value, made.axis] = Slot(
                    value=value, axis=made.axis, indices=indices, role="activation"
                )
        return tuple(found.values())

    def _unit(self, makers: Sequence[Made], members: np.ndarray) -> Unit:
        if int(members[0]) in self._heads:
            return "head"
        return "hidden" if makers and makers[0].node.op_type in NEURON_LAYERS else "channel"

    def _restated(self, members: np.ndarray) -> tuple[str, ...]:
        found = [
            item.node.name or ""
            for item in self._reading.restated
            if any(np.isin(self._roots[vector], members).any() for vector in vectors(item.label))
        ]
        return tuple(dict.fromkeys(found))

    def _crossings(
        self, groups: Sequence[Group], members: Mapping[str, np.ndarray]
    ) -> dict[str, dict[str, None]]:
        """Groups that are different factors of one segment."""
        owner = {int(root): group.id for group in groups for root in members[group.id]}
        owners: dict[tuple[Place, int], dict[int, set[str]]] = {}
        for block in self._reading.units.blocks:
            roots = self._roots[block.start : block.start + block.size].tolist()
            names = {owner[root] for root in roots if root in owner}
            owners.setdefault((block.place, block.segment), {})[block.factor] = names
        result: dict[str, dict[str, None]] = {group.id: {} for group in groups}
        for factors in owners.values():
            for factor, names in factors.items():
                others = [name for other, found in factors.items() if other != factor for name in found]
                for name in names:
                    result[name].update(dict.fromkeys(sorted(set(others) - {name})))
        return result


def rows(label: Label, roots: np.ndarray, members: np.ndarray) -> np.ndarray:
    """For every unit its positions on an axis, ascending: shape (units, k); empty where their number differs."""
    owner = np.argsort(members)
    ordered = members[owner]
    found: list[np.ndarray] = []
    offset = 0
    for segment in label:
        for index, factor in enumerate(segment):
            if isinstance(factor, Rigid):
                continue
            where = np.minimum(np.searchsorted(ordered, roots[factor]), len(ordered) - 1)
            mine = ordered[where] == roots[factor]
            places = positions(segment, index)[mine] + offset
            units = np.broadcast_to(owner[where[mine]][:, None], places.shape)
            found.append(np.stack([units.reshape(-1), places.reshape(-1)]))
        offset += segment_size(segment).number
    pairs = np.concatenate(found, axis=1) if found else np.zeros((2, 0), np.int64)
    pairs = pairs[:, np.lexsort((pairs[1], pairs[0]))]
    counts = np.bincount(pairs[0], minlength=len(members))
    if not len(members) or (counts != counts[0]).any():
        return np.zeros((len(members), 0), np.int64)
    result: np.ndarray = pairs[1].reshape(len(members), -1)
    return result


def _key(slot: Slot) -> tuple[object, ...]:
    """Nodes that share a vector have the same slot."""
    return slot.value, slot.axis, slot.role, slot.indices.tobytes()


def _free(name: str, taken: Container[str]) -> str:
    count, free = 1, name
    while free in taken:
        count += 1
        free = f"{name}:{count}"
    return free
