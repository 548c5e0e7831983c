"""Brings trained weights back into the model and says of each layer how far it moved."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compression.graph.constants import release
from compression.graph.trainable import write_back
from compression.method import LayerOutcome
from compression.training.run import Training

if TYPE_CHECKING:
    import onnx_ir as ir

    from compression.graph import Layer

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


def finish(
    training: Training, words: Mapping[str, str], *, done: str = "trained", before: Arrays | None = None
) -> tuple[LayerOutcome, ...]:
    """Writes the view's weights into the model, without the normalizations that stood there for the training alone,
    and tells each chosen layer's outcome.

    Args:
        training: the view has trained.
        words: by tensor, what was kept or done beside; joins the layer's note.
        done: how the note begins.
        before: what `stored` gave before the model was changed; by default what it holds now.
    """
    before = before or stored(training)
    write_back(training.view, training.model)
    training.restored.fold(training.model)
    after = stored(training)
    return tuple(_outcome(training, layer, (before, after), words, done) for layer in training.chosen)


def stored(training: Training) -> dict[str, Array]:
    """What the chosen layers store of all that training may move, by name."""
    return dict(_stored(training))


def _stored(training: Training) -> Iterator[tuple[str, Array]]:
    known = {*training.view.weights, *training.view.statistics}
    for layer in training.chosen:
        for value in layer.weights:
            tensor = value.const_value
            if value.name in known and tensor is not None:
                yield value.name, np.array(tensor.numpy())
                release(tensor)


def _outcome(
    training: Training, layer: "Layer", arrays: tuple[Arrays, Arrays], words: Mapping[str, str], done: str
) -> LayerOutcome:
    before, after = arrays
    names = [name for name in _names(layer.weights) if name in before]
    changed = any(before[name].tobytes() != after[name].tobytes() for name in names)
    if not training.learning.intersection(names):
        return LayerOutcome(layer=layer.name, changed=changed, note=_why_still(training, layer))
    moved = _relative_change([before[name] for name in names], [after[name] for name in names])
    told = dict.fromkeys(words[name] for name in names if name in words)
    note = f"{done}, moved by {moved:.2%}" if changed else f"{done}, and came out as it was"
    return LayerOutcome(
        layer=layer.name,
        changed=changed,
        note="; ".join([note, *told]),
        numbers={"relative_change": round(moved, 6)},
    )


def _names(weights: "Sequence[ir.Value]") -> list[str]:
    return [value.name or "" for value in weights]


def _why_still(training: Training, layer: "Layer") -> str:
    if any(name in training.view.weights for name in _names(layer.weights)):
        return "shares its weights with a layer that is not selected"
    return "has no weights that training could move"


def _relative_change(before: Sequence[Array], after: Sequence[Array]) -> float:
    """L2 norm of the change relative to that of the weights before."""
    one = np.concatenate([array.astype(np.float64).reshape(-1) for array in before])
    two = np.concatenate([array.astype(np.float64).reshape(-1) for array in after])
    return float(np.linalg.norm(two - one)) / max(float(np.linalg.norm(one)), 1e-30)
