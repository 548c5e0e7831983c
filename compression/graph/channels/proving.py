"""Holds a cut model against the original in which the same units are silent."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from compression.graph.channels.group import Doomed
from compression.graph.channels.silencing import silence

TOLERANCE = 1e-5
"""Relative to the largest entry of an output, in float32; sums over fewer terms are rounded otherwise."""
TINY = 1e-30
"""An output that is smaller than this all over counts as zero."""
BOUNDED = frozenset({"HardSigmoid", "LogSoftmax", "Sigmoid", "Softmax", "Tanh"})
"""Their rounding errors are absolute, and where they saturate they hide differences."""
LAYOUT = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def prove(
    original: ir.Model,
    cut: ir.Model,
    doomed: Doomed,
    feeds: Mapping[str, np.ndarray],
    *,
    widths: bool = False,
) -> float:
    """The largest error between both, relative to the largest entry of each output.

    Both run in onnxruntime without graph optimizations. A sound cut stays below `TOLERANCE` in float32. Of
    outputs that a Sigmoid, Softmax or the like gives, what flows into it is compared that way, too, and the
    output itself relative to 1.

    Args:
        original: the model before the cut; stays as it is.
        cut: the model after it.
        doomed: what was cut.
        feeds: inputs by name.
        widths: as the groups were found.

    Returns:
        The error; infinite where shapes differ or only one of both gives a finite number.
    """
    from compression.runtime import open_session, run

    silent = original.clone()
    silence(silent, doomed, widths=widths)
    before, after = _before_bounds(silent), _before_bounds(cut)
    inner = sorted({name for output, name in before.items() if after.get(output) == name})
    expected, found = (
        run(open_session(model, device="cpu", threads=1, optimize=False, outputs=inner), feeds)
        for model in (silent, cut)
    )
    return max(
        (_error(expected[name], found[name], 1.0 if name in before else TINY) for name in expected),
        default=0.0,
    )


def _before_bounds(model: ir.Model) -> dict[str, str]:
    """By output that a bounded operator gives the name of what flows into it."""
    found: dict[str, str] = {}
    for output in model.graph.outputs:
        node = output.producer()
        while node is not None and node.op_type in LAYOUT and node.inputs[0] is not None:
            node = node.inputs[0].producer()
        given = node.inputs[0] if node is not None and node.op_type in BOUNDED else None
        if given is not None and given.producer() is not None and given.name and not given.is_graph_output():
            found[output.name or ""] = given.name
    return found


def _error(expected: object, found: object, least: float) -> float:
    """`least` is the smallest size that an output is measured by."""
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return max(
            (_error(one, other, least) for one, other in zip(expected, found, strict=True)), default=0.0
        )
    one, other = np.asarray(expected), np.asarray(found)
    if one.shape != other.shape:
        return float("inf")
    if one.dtype.kind not in "fiu":
        return 0.0 if np.array_equal(one, other) else float("inf")
    return _relative(one.astype(np.float64), other.astype(np.float64), least)


def _relative(one: np.ndarray, other: np.ndarray, least: float) -> float:
    finite = np.isfinite(one)
    if not np.array_equal(finite, np.isfinite(other)):
        return float("inf")
    if not finite.any():
        return 0.0
    largest = max(float(np.abs(one[finite]).max()), least)
    return float(np.abs(one - other)[finite].max()) / largest
