"""Holds a cut model against the original in which the same units are silent."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from compression.graph.channels.group import Doomed
from compression.graph.channels.silencing import silence

TOLERANCE = 1e-5
"""Relative to the largest entry of an output, in float32; sums over fewer terms are rounded otherwise."""
TINY = 1e-30
"""An output that is smaller than this all over counts as zero."""
BOUNDED = frozenset({"HardSigmoid", "Sigmoid", "Softmax", "Tanh"})
"""Where they saturate they hide differences; elsewhere they make the rounding of large inputs count."""
LAYOUT = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
Answers = Mapping[str, Any]


def prove(
    original: ir.Model,
    cut: ir.Model,
    doomed: Doomed,
    feeds: Mapping[str, np.ndarray],
    *,
    widths: bool = False,
) -> float:
    """The largest error between both, relative to the largest entry of each output.

    Both run in onnxruntime without graph optimizations. A sound cut stays below `TOLERANCE` in float32, or, in
    networks that make much of rounding errors, below a few times what `rounding` gives. Of an output that a
    Sigmoid, Softmax or Tanh gives, what flows into it is compared instead.

    Args:
        original: the model before the cut; stays as it is.
        cut: the model after it.
        doomed: what was cut.
        feeds: inputs by name.
        widths: as the groups were found.

    Returns:
        The error; infinite where shapes differ or only one of both gives a finite number.
    """
    silent = original.clone()
    silence(silent, doomed, widths=widths)
    inner = _compared_inside(silent, cut)
    return _difference(_run(silent, inner, feeds), _run(cut, inner, feeds), inner)


def rounding(
    original: ir.Model, doomed: Doomed, feeds: Mapping[str, np.ndarray], *, widths: bool = False
) -> float:
    """How far the silent original is from itself where onnxruntime may rewrite it: what rounding alone does.

    In the measure of `prove`, with the same arguments.
    """
    silent = original.clone()
    silence(silent, doomed, widths=widths)
    inner = _compared_inside(silent, silent)
    plain, rewritten = (_run(silent, inner, feeds, optimize=optimize) for optimize in (False, True))
    return _difference(plain, rewritten, inner)


def _run(
    model: ir.Model, inner: Mapping[str, str], feeds: Mapping[str, np.ndarray], *, optimize: bool = False
) -> Answers:
    from compression.runtime import open_session, run

    names = sorted(set(inner.values()))
    return run(open_session(model, device="cpu", threads=1, optimize=optimize, outputs=names), feeds)


def _compared_inside(first: ir.Model, second: ir.Model) -> dict[str, str]:
    """By output that a bounded operator gives what flows into it, where both models call it the same."""
    other = _before_bounds(second)
    return {output: name for output, name in _before_bounds(first).items() if other.get(output) == name}


def _difference(expected: Answers, found: Answers, inner: Mapping[str, str]) -> float:
    errors = {name: _error(expected[name], found[name]) for name in expected}
    counted = [error for name, error in errors.items() if name not in inner or error == float("inf")]
    return max(counted, default=0.0)


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
    return float(np.abs(one[finite] - other[finite]).max()) / largest
