"""Finds what a penalty works on in a model: the kernels' weights, or the units that leave together."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from compression.errors import NotApplicable
from compression.graph import layers
from compression.graph.channels import Group, find_groups
from compression.graph.channels import Slot as Place
from compression.sparse_learning.parts import Part, Slice, Units, Weights
from compression.sparse_learning.wish import Groups, Penalty
from compression.training.run import Training
from compression.weight_targets import Target, find_targets, output_axis, reduction_axis

if TYPE_CHECKING:
    import onnx_ir as ir


MISSING = "its weight is none that training could move"


def find_parts(
    training: Training, penalty: Penalty, groups: Groups
) -> tuple[tuple[Part, ...], Mapping[str, str]]:
    """The parts of the chosen layers; and by layer's name, why one is not penalised.

    Raises:
        NotApplicable: there is nothing to penalise.
    """
    targets, kept = find_targets(training.chosen, layers(training.model))
    learning = [target for target in targets if target.value.name in training.learning]
    kept |= {layer.name: MISSING for target in targets if target not in learning for layer in target.layers}
    found: list[Part]
    if penalty != "group_lasso":
        found = [_weights(training, target, squared=penalty == "l2") for target in learning]
    elif groups == "channels":
        found = list(_channels(training, learning, kept))
    else:
        found = list(_axes(training, learning, groups, kept))
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(kept.items())[:3])
        raise NotApplicable(
            f"nothing in the selected layers can be penalised{f' ({reasons})' if reasons else ''}",
            where="layers",
            hint="select layers with kernels or matrices that hold floats, or take another penalty",
        )
    return tuple(found), kept


def _weights(training: Training, target: Target, *, squared: bool) -> Weights:
    name = target.value.name or ""
    return Weights(name=name, layers=_names(target), weight=training.view.weights[name], squared=squared)


def _names(target: Target) -> tuple[str, ...]:
    return tuple(layer.name for layer in target.layers)


def _axes(
    training: Training, targets: Sequence[Target], groups: Groups, kept: dict[str, str]
) -> Iterator[Units]:
    """Slices of each kernel along one axis."""
    for target in targets:
        layer = target.layers[0]
        axis = (output_axis if groups == "filters" else reduction_axis)(layer, target.value)
        if axis is None:
            kept |= dict.fromkeys(_names(target), f"its weight has no axis of {groups}")
            continue
        places = np.arange(target.shape[axis])[:, None]
        yield Units(
            name=target.value.name or "",
            layers=_names(target),
            slices=(_slice(training, target.value, axis, places),),
        )


def _slice(training: Training, value: "ir.Value", axis: int, indices: np.ndarray) -> Slice:
    name = value.name or ""
    weight = training.view.weights[name]
    return Slice(name=name, weight=weight, axis=axis, indices=torch.from_numpy(indices).to(weight.device))


def _channels(training: Training, targets: Sequence[Target], kept: dict[str, str]) -> Iterator[Units]:
    """Units that could be cut from the graph, each over all kernels that make it."""
    grouping = find_groups(training.model)
    owners: dict[str, list[str]] = {}
    for target in targets:
        owners.setdefault(target.value.name or "", []).extend(_names(target))
    of_layers = {value.name for layer in training.chosen for value in layer.weights}
    reached: set[str] = set()
    for group in grouping.groups:
        makers = [place.value.name or "" for place in group.producers]
        stranger = next((name for name in makers if name not in owners), None)
        if stranger is not None or not makers:
            continue
        named = tuple(dict.fromkeys(name for maker in makers for name in owners[maker]))
        reached.update(named)
        yield _units(training, group, named, [p for p in group.others if p.value.name in of_layers])
    locked = {found.layer: f"its outputs must stay: {found.reason}" for found in grouping.locked}
    for names in owners.values():
        for name in names:
            if name not in reached:
                kept[name] = locked.get(
                    name, "its units leave only with those of layers that are not selected"
                )


def _units(training: Training, group: Group, named: tuple[str, ...], others: Sequence[Place]) -> Units:
    slices = [_slice(training, place.value, place.axis, place.indices) for place in group.producers]
    return Units(
        name=group.id,
        layers=named,
        slices=slices,
        followers=[
            _slice(training, place.value, place.axis, place.indices)
            for place in others
            if place.value.name in training.learning
        ],
    )
