"""Whether the view computes what onnxruntime computes, on real inputs, before anything trains."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from compression.errors import NotTrainable
from compression.graph.naming import all_graphs
from compression.graph.operators import is_quantized_operator
from compression.graph.trainable.elements import computed_array
from compression.graph.trainable.node import Value
from compression.graph.trainable.view import TrainableGraph

ROUNDED_RTOL = 0.05
"""Where a model rounds on its way (half precision, quantization), a sum in another order may cross a step."""
NOISE_FACTOR = 32.0
"""How much more than one change in the last bit of every result rounding may move an output: a sum rounds often."""
SMALLEST = 1e-2
"""Far below it onnxruntime's own functions are not exact: its sigmoid is off by 1e-7 however small it is."""
HALVES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


def check_agreement(
    view: TrainableGraph, model: ir.Model, feeds: Mapping[str, np.ndarray], *, rtol: float = 1e-4
) -> float:
    """Runs both on the same feeds, the view as for inference, and gives the largest relative error.

    The error of a float output is its largest deviation relative to its largest entry; models that round on
    their way are held to their mean square instead. Integers and truths must be equal, but for ties: one
    entry in a thousand may differ. Where cancellation lets rounding grow, as in a variance computed from
    large means, an output may deviate as far as changes in the last bit of all that is computed move it.

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
    rounds = _rounds(model)
    limit = ROUNDED_RTOL if rounds else rtol
    found = _answers(view, feeds)
    worst, error = _worst(expected, found, rounds)
    if not error <= limit and not error <= min(NOISE_FACTOR * _noise(view, feeds, worst), ROUNDED_RTOL):
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


def _worst(expected: Mapping[str, Value], found: Mapping[str, Value], rounds: bool) -> tuple[str, float]:
    """The output that deviates most, and by how much."""
    errors = {
        name: max((_error(one, two, rounds) for one, two in _tensors(value, found[name])), default=0.0)
        for name, value in expected.items()
    }
    worst = max(errors, key=lambda name: (np.isnan(errors[name]), errors[name]), default="")
    return worst, errors.get(worst, 0.0)


def _noise(view: TrainableGraph, feeds: Mapping[str, np.ndarray], output: str) -> float:
    """How far an output moves when every result on the way to it changes in its last bit."""
    still = _answers(view, feeds)
    with Shaken():
        moved = _answers(view, feeds)
    return _worst({output: _as_arrays(still[output])}, moved, False)[1]


class Shaken(TorchFunctionMode):
    """Changes every float tensor that a torch function returns by one unit in the last place, up or down."""

    def __init__(self) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(0)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, Tensor) or not result.is_floating_point():
            return result
        signs = torch.randint(0, 2, result.shape, generator=self._generator).to(result.device) * 2 - 1
        return result * (1 + signs * torch.finfo(result.dtype).eps)


def _as_arrays(value: Value) -> Value:
    return [_as_arrays(item) for item in value] if isinstance(value, list) else value.detach().cpu().numpy()


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
    """Relative to the largest entry, or to the root of the mean square where the model rounds.

    Outputs that are tiny throughout count as if the largest were SMALLEST.
    """
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
            float(np.sqrt((difference**2).mean()) / max(np.sqrt((one**2).mean()), SMALLEST))
            if one.size
            else 0.0
        )
    return float(np.abs(difference).max(initial=0.0) / max(np.abs(one).max(initial=0.0), SMALLEST))
