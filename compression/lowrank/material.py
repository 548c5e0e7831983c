"""The places of a model with what is known of their inputs, and each as a problem when its turn comes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from compression.lowrank.biases import takes_bias
from compression.lowrank.factors import Problem
from compression.lowrank.finding import Place
from compression.lowrank.moments import Moments, Stored, gather, unseen
from compression.lowrank.norm import Norm
from compression.lowrank.wish import Wish
from compression.method import Role, StepContext


@dataclass(frozen=True, kw_only=True)
class Material:
    """One weight and one matrix of moments are in memory at a time."""

    wish: Wish
    seed: int
    stored: Mapping[str, Stored]
    unwhitened: Mapping[str, str]
    """Why the inputs of a place are not known, by its name; empty where they were not asked for."""

    def problem(self, place: Place) -> Problem:
        moments = self.moments(place)
        matrix = None if moments is None else moments.norm_matrix(centred=self.is_centred(place))
        shape = place.geometry
        return Problem(
            geometry=shape,
            weight=place.read(),
            norm=Norm(inputs=shape.inputs, kernel=shape.kernel, moments=matrix),
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


def collect(model: ir.Model, places: Sequence[Place], wish: Wish, context: StepContext) -> Material:
    """Run the calibration data through the model, where it is asked for.

    Raises:
        DataMismatch: the data does not fit the model.
    """
    if wish.whiten == "none" or Role.CALIBRATION not in context.data:
        return Material(wish=wish, seed=context.seed, stored={}, unwhitened={})
    reasons = {place.name: unseen(place, model) for place in places}
    able = [place for place in places if reasons[place.name] is None]
    stored, refused = gather(model, able, context, most=wish.max_samples)
    refused |= {name: reason for name, reason in reasons.items() if reason is not None}
    return Material(wish=wish, seed=context.seed, stored=stored, unwhitened=refused)
