"""The largest magnitude of each channel of some tensors over the calibration data, one sample at a time."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from compression import runtime
from compression.equalization.groups import Group
from compression.equalization.parts import Doubles
from compression.graph import interface
from compression.method import Role, StepContext


def channel_magnitudes(
    model: ir.Model, groups: Sequence[Group], context: StepContext, *, samples: int
) -> dict[str, Doubles]:
    """max|X_j| by the name of the tensor, each of shape (channels,).

    Memory holds the tensors of one sample. NaN and infinity stay in the result, so that they can be told of.

    Raises:
        DataMismatch: the data does not fit the model.
    """
    data = context.data[Role.CALIBRATION]
    inputs = interface(model)[0]
    total = min(len(data), samples)
    wanted = list(dict.fromkeys(group.name for group in groups))
    session = runtime.open_session(model, device=context.device, threads=context.threads, outputs=wanted)
    found = {group.name: np.zeros(group.channels) for group in groups}
    for number, feed in enumerate(data.feeds(inputs, 1, limit=total)):
        context.report(0.1 + 0.4 * number / max(total, 1), f"activations of sample {number + 1} of {total}")
        answers = runtime.run(session, feed)
        for group in groups:
            _take(found[group.name], answers[group.name], group)
    return found


def _take(found: Doubles, value: np.ndarray, group: Group) -> None:
    """Raise the maxima to those of one more value; a flattened one holds `each` neighbours per channel."""
    if value.size == 0:
        return
    last = np.moveaxis(value, group.axis, -1).reshape(-1, group.channels, group.each)
    np.maximum(found, np.abs(last).max(axis=(0, 2)), out=found)
