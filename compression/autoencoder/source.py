"""Where an autoencoder's samples come from: an array of the data, or what a layer gives on it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compression.autoencoder.samples import BATCH, Stream, activation_stream, array_stream
from compression.autoencoder.wish import Wish
from compression.distillation.features import Feature, find_features
from compression.errors import NotApplicable
from compression.evaluation.inputs import Source
from compression.graph import interface
from compression.method import Role, StepContext

if TYPE_CHECKING:
    import onnx_ir as ir

SHOWN = 8


def open_stream(
    model: "ir.Model", wish: Wish, chosen: Sequence[str], context: StepContext
) -> tuple[Stream, str, Feature | None]:
    """The samples, the name of the value that holds them, and the layer that gives them, where one does.

    Args:
        model: whose activations are taken.
        wish: names the array or the layer; with neither the last of the chosen layers inside the model is taken.
        chosen: names of the layers that may be taken.
        context: the training data.

    Raises:
        NotApplicable: there is no such array or layer, or its values have no entries for each sample.
    """
    dataset = context.data[Role.TRAINING]
    if wish.array is not None:
        return array_stream(dataset, wish.array), wish.array, None
    source = Source(origin="calibration", inputs=interface(model)[0], dataset=dataset, batch_limit=BATCH)
    first = next(source.batches())
    feature = _pick(find_features(model, first.feeds, first.rows, context), wish.layer, chosen)
    stream = activation_stream(model, feature.value, lambda _: feature.channel_axis, dataset, context)
    return stream, feature.value, feature


def _pick(found: Sequence[Feature], layer: str | None, chosen: Sequence[str]) -> Feature:
    fitting = [feature for feature in found if feature.layer in chosen]
    wanted = [feature for feature in fitting if layer in (None, feature.layer)]
    if wanted:
        return wanted[-1]
    what = f"the layer {layer!r} gives" if layer is not None else "the selected layers give"
    names = ", ".join(feature.layer for feature in fitting[:SHOWN]) or "none of those selected"
    raise NotApplicable(
        f"{what} no float values inside the model with one entry per sample: outputs of the model, shared tables "
        "and values without a batch axis cannot be encoded",
        where="layer",
        hint=f"layers that can: {names}",
    )
