"""Entropy scores: units whose activation is nearly the same on all data tell little."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression import runtime
from compression.channel_pruning.scores import Scores, relative_mean
from compression.graph.channels import Group, Slot
from compression.method import StepContext
from compression.training.batches import Batch

BINS = 32
Array = NDArray[Any]


def entropy(
    model: ir.Model, groups: Sequence[Group], batches: Iterable[Batch], context: StepContext
) -> Mapping[str, Scores]:
    """By group the entropy of each unit's mean activation over the samples, in nats, relative to the group's mean.

    Luo and Wu 2017 (arXiv:1706.05791), equation 3: activations are averaged over positions, and the range that
    all units of a tensor take is divided into bins.
    """
    slots = [(group.id, slot) for group in groups for slot in group.activations if _is_visible(model, slot)]
    values = sorted({slot.value.name or "" for _, slot in slots})
    session = runtime.open_session(model, device=context.device, threads=context.threads, outputs=values)
    seen: list[list[Array]] = [[] for _ in slots]
    for batch in batches:
        found = runtime.run(session, batch.feeds)
        for parts, (_, slot) in zip(seen, slots, strict=True):
            parts.append(_averaged(found[slot.value.name or ""], slot, batch))
        context.report(0.0, "watching the activations")
    entropies: dict[str, list[Scores]] = {group.id: [] for group in groups}
    for parts, (name, _) in zip(seen, slots, strict=True):
        entropies[name].append(_entropies(np.concatenate(parts)))
    return {group.id: relative_mean(entropies[group.id], group.size) for group in groups}


def visible(model: ir.Model, group: Group) -> bool:
    """Whether a group has an activation that the main graph could give as an output."""
    return any(_is_visible(model, slot) for slot in group.activations)


def _is_visible(model: ir.Model, slot: Slot) -> bool:
    producer = slot.value.producer()
    return producer is not None and producer.graph is model.graph


def _averaged(array: Array, slot: Slot, batch: Batch) -> Array:
    """[observations, units]: one observation per sample where the first axis counts samples, else per position."""
    moved = np.moveaxis(array.astype(np.float64), slot.axis, -1)
    by_unit = moved[..., slot.indices].mean(axis=-1)
    if slot.axis and len(by_unit) >= batch.samples and by_unit.ndim > 1:
        by_unit = by_unit[: batch.samples].reshape(batch.samples, -1, by_unit.shape[-1]).mean(axis=1)
    found: Array = by_unit.reshape(-1, by_unit.shape[-1])
    return found


def _entropies(observed: Array) -> Scores:
    """Of each column, from counts in bins over the range of all."""
    low, high = float(observed.min()), float(observed.max())
    width = (high - low) / BINS or 1.0
    bins = np.clip(((observed - low) / width).astype(np.int64), 0, BINS - 1)
    found = np.zeros(observed.shape[1])
    for unit in range(observed.shape[1]):
        shares = np.bincount(bins[:, unit]) / len(bins)
        shares = shares[shares > 0]
        found[unit] = -float(np.sum(shares * np.log(shares)))
    return found
