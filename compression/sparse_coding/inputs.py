"""What is known of the inputs of the layers that read a weight, where calibration data is to tell what counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from compression.graph import Layer, infer_shapes
from compression.lowrank.biases import add_to_bias, takes_bias
from compression.lowrank.finding import Place, find_places
from compression.lowrank.moments import Moments, Stored, gather, unseen
from compression.method import Role, StepContext
from compression.quantization.storage import Names
from compression.sparse_coding.pursuit import Doubles


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Moments of inputs by weight; weights that are not here are coded by themselves."""

    places: Mapping[int, Place] = field(default_factory=dict)
    """By `id` of the stored value."""
    stored: Mapping[str, Stored] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    """By name of the place, why its inputs are not known."""
    correct_biases: bool = True

    def moments(self, value: ir.Value) -> Moments | None:
        place = self.places.get(id(value))
        found = None if place is None else self.stored.get(place.name)
        return None if found is None else found.read()

    def blind(self, value: ir.Value) -> str | None:
        """Why a weight's inputs are not known though they were asked for."""
        if not self.places and not self.stored:
            return None
        place = self.places.get(id(value))
        return "its inputs are not looked at" if place is None else self.refused.get(place.name)

    def centred(self, value: ir.Value) -> bool:
        """Whether biases take up the mean error, so that only what varies counts."""
        place = self.places.get(id(value))
        return self.correct_biases and place is not None and all(map(takes_bias, place.layers))

    def correct(self, value: ir.Value, error: Doubles, moments: Moments, names: Names) -> None:
        """Let biases take up the mean of what an error (rows, width) of the weight changes."""
        amount = np.asarray(error @ moments.mean)
        for layer in self.places[id(value)].layers:
            add_to_bias(layer, amount, names)


def look(
    model: ir.Model, chosen: Sequence[Layer], context: StepContext, *, most: int, correct_biases: bool
) -> Inputs:
    """One or few passes over at most `most` calibration samples.

    Raises:
        DataMismatch: the data does not fit the model.
    """
    if Role.CALIBRATION not in context.data:
        return Inputs()
    infer_shapes(model)
    places, _ = find_places(model, chosen)
    reasons = {place.name: unseen(place, model) for place in places}
    able = [place for place in places if reasons[place.name] is None]
    stored, refused = gather(model, able, context, most=most)
    refused |= {name: reason for name, reason in reasons.items() if reason is not None}
    return Inputs(
        places={id(place.target.value): place for place in places},
        stored=stored,
        refused=refused,
        correct_biases=correct_biases,
    )
