"""The places of a model with what is known of their inputs, and each as a problem when its turn comes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from compression.errors import NotTrainable
from compression.graph.macs import count_macs
from compression.lowrank.biases import takes_bias
from compression.lowrank.factors import Problem
from compression.lowrank.finding import Place
from compression.lowrank.moments import Moments, Stored, gather, unseen
from compression.lowrank.norm import SAME, Norm, Root
from compression.lowrank.wish import Wish, gradient_samples
from compression.method import Role, StepContext
from compression.quantization.check import MAX_BYTES, weight_bytes


@dataclass(frozen=True, kw_only=True)
class Material:
    """One weight and one matrix of moments are in memory at a time."""

    wish: Wish
    seed: int
    stored: Mapping[str, Stored]
    unwhitened: Mapping[str, str]
    """Why the inputs of a place are not known, by its name; empty where they were not asked for."""
    curvature: Mapping[str, Path] = field(default_factory=dict)
    """By place, how far the model's outputs move with what it gives."""
    undifferentiated: str = ""
    """Why that is not known; empty where it was not asked for."""

    def problem(self, place: Place) -> Problem:
        moments = self.moments(place)
        matrix = None if moments is None else moments.norm_matrix(centred=self.is_centred(place))
        shape, weight, outputs = place.geometry, place.read(), self._outputs(place)
        return Problem(
            geometry=shape,
            weight=outputs.whiten(weight.reshape(len(weight), -1)).reshape(weight.shape),
            norm=Norm(inputs=shape.inputs, kernel=shape.kernel, moments=matrix),
            outputs=outputs,
            width=place.width_bytes,
            round_to=self.wish.round_to,
            seed=self.seed,
        )

    def moments(self, place: Place) -> Moments | None:
        found = self.stored.get(place.name)
        return None if found is None else found.read()

    def is_centred(self, place: Place) -> bool:
        """Whether biases take up the mean error, so that only what varies counts."""
        known = self.wish.correct_biases and place.name in self.stored
        return known and all(takes_bias(layer) for layer in place.layers)

    def _outputs(self, place: Place) -> Root:
        file = self.curvature.get(place.name)
        return SAME if file is None else Root.of(np.load(file))


def collect(model: ir.Model, places: Sequence[Place], wish: Wish, context: StepContext) -> Material:
    """Run the calibration data through the model, where it is asked for.

    Raises:
        DataMismatch: the data does not fit the model.
    """
    if wish.whiten == "none" or Role.CALIBRATION not in context.data:
        return Material(wish=wish, seed=context.seed, stored={}, unwhitened={})
    reasons = {place.name: unseen(place, model) for place in places}
    able = [place for place in places if reasons[place.name] is None]
    early = replace(context, report=lambda done, words: context.report(0.5 * done, words))
    stored, refused = gather(model, able, early, most=wish.max_samples)
    refused |= {name: reason for name, reason in reasons.items() if reason is not None}
    found = Material(wish=wish, seed=context.seed, stored=stored, unwhitened=refused)
    if not wish.weigh_outputs or not stored:
        return found
    late = replace(context, report=lambda done, words: context.report(0.5 + 0.5 * done, words))
    return _with_curvature(found, model, [place for place in able if place.name in stored], late)


def _with_curvature(
    found: Material, model: ir.Model, places: Sequence[Place], context: StepContext
) -> Material:
    from compression.lowrank.curvature import gather_curvature

    if weight_bytes(model) > MAX_BYTES:
        return replace(found, undifferentiated="the model is too large to be differentiated inside the step")
    try:
        samples = gradient_samples(count_macs(model).total, found.wish.max_samples)
        curvature = gather_curvature(model, places, context, most=samples)
    except NotTrainable as error:
        return replace(found, undifferentiated=error.message)
    return replace(found, curvature=curvature)
