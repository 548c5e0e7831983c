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


def prove(original: ir.Model, cut: ir.Model, doomed: Doomed, feeds: Mapping[str, np.ndarray]) -> float:
    """The largest error between both, relative to the largest entry of each output.

    Both run in onnxruntime without graph optimizations. A sound cut stays below `TOLERANCE` in float32.

    Args:
        original: the model before the cut; stays as it is.
        cut: the model after it.
        doomed: what was cut.
        feeds: inputs by name.

    Returns:
        The error; infinite where shapes differ or only one of both gives a finite number.
    """
    from compression.runtime import open_session, run

    silent = original.clone()
    silence(silent, doomed)
    answers = [
        run(open_session(model, device="cpu", threads=1, optimize=False), feeds) for model in (silent, cut)
    ]
    return max((_error(answers[0][name], answers[1][name]) for name in answers[0]), default=0.0)


def _error(expected: object, found: object) -> float:
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return max((_error(one, other) for one, other in zip(expected, found, strict=True)), default=0.0)
    one, other = np.asarray(expected), np.asarray(found)
    if one.shape != other.shape:
        return float("inf")
    if one.dtype.kind not in "fiu":
        return 0.0 if np.array_equal(one, other) else float("inf")
    return _relative(one.astype(np.float64), other.astype(np.float64))


def _relative(one: np.ndarray, other: np.ndarray) -> float:
    finite = np.isfinite(one)
    if not np.array_equal(finite, np.isfinite(other)):
        return float("inf")
    if not finite.any():
        return 0.0
    largest = max(float(np.abs(one[finite]).max()), TINY)
    return float(np.abs(one - other)[finite].max()) / largest
