"""Whether the view computes what onnxruntime computes, on real inputs, before anything trains."""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir
import torch

from compression.errors import NotTrainable
from compression.graph.naming import all_graphs
from compression.graph.operators import is_quantized_operator
from compression.graph.trainable.elements import computed_array
from compression.graph.trainable.node import Value
from compression.graph.trainable.view import TrainableGraph

ROUNDED_RTOL = 0.05
"""Where a model rounds on its way (half precision, quantization), a sum in another order may cross a step."""
HALVES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


def check_agreement(
    view: TrainableGraph, model: ir.Model, feeds: Mapping[str, np.ndarray], *, rtol: float = 1e-4
) -> float:
    """Runs both on the same feeds, the view as for inference, and gives the largest relative error.

    The error of a float output is its largest deviation relative to its largest entry; models that round on
    their way are held to their mean square instead. Integers and truths must be equal, but for ties: one
    entry in a thousand may differ.

    Args:
        view: made from `model`; stays in the mode it is in.
        model: what onnxruntime runs, without rewriting it.
        feeds: one batch by input name, as onnxruntime takes it.
        rtol: what float outputs may deviate by.

    Raises:
        NotTrainable: an output deviates by more; the message names the worst one and by how much.
        DataMismatch: onnxruntime fails on the feeds.
    """
    from compression.runtime import open_session, run

    expected = run(open_session(model, device="cpu", threads=torch.get_num_threads(), optimize=False), feeds)
    found = _answers(view, feeds)
    rounds = _rounds(model)
    errors = {
        name: max((_error(one, two, rounds) for one, two in _tensors(value, found[name])), default=0.0)
        for name, value in expected.items()
    }
    worst = max(errors, key=lambda name: errors[name], default="")
    error = errors.get(worst, 0.0)
    if not error <= (ROUNDED_RTOL if rounds else rtol):
        raise NotTrainable(
            f"the output {worst!r} deviates from onnxruntime's by {error:.2g} of its largest entry",
            where=worst,
            hint="methods that need no gradients still run",
        )
    return error


def _answers(view: TrainableGraph, feeds: Mapping[str, np.ndarray]) -> dict[str, Value]:
    was_training = view.training
    view.eval()
    try:
        with torch.no_grad():
            answers: dict[str, Value] = view(
                {name: torch.from_numpy(computed_array(array)) for name, array in feeds.items()}
            )
            return answers
    finally:
        view.train(was_training)


def _rounds(model: ir.Model) -> bool:
    if any(is_quantized_operator(node) for graph in all_graphs(model) for node in graph):
        return True
    return any(
        value.dtype in HALVES
        for graph in all_graphs(model)
        for value in (*graph.initializers.values(), *graph.inputs)
    )


def _tensors(expected: Value, found: Value) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of arrays, of which sequences have several and empty optionals none."""
    if isinstance(expected, list):
        if len(expected) != len(found):
            raise NotTrainable(f"a sequence has {len(found)} entries instead of {len(expected)}")
        for one, two in zip(expected, found, strict=True):
            yield from _tensors(one, two)
    elif expected is not None:
        yield np.asarray(expected), found.detach().cpu().numpy()


def _error(expected: np.ndarray, found: np.ndarray, rounds: bool) -> float:
    """Relative to the largest entry, or to the root of the mean square where the model rounds."""
    if expected.shape != found.shape:
        return float("inf")
    if expected.dtype.kind not in "fV":
        differing = int(np.count_nonzero(computed_array(expected) != found))
        return 0.0 if differing <= expected.size / 1000 else differing / expected.size
    one, two = expected.astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.where((one == two) | (np.isnan(one) & np.isnan(two)), 0.0, two - one)
        one = np.where(np.isfinite(one), one, 0.0)
    if rounds:
        return (
            float(np.sqrt((difference**2).mean()) / max(np.sqrt((one**2).mean()), 1e-6)) if one.size else 0.0
        )
    return float(np.abs(difference).max(initial=0.0) / max(np.abs(one).max(initial=0.0), 1e-6))
