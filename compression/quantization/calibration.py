"""One pass over calibration data that learns the range of chosen tensors, in memory that does not grow with
it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from compression import runtime
from compression.method import StepContext
from compression.quantization.affine import Range
from compression.quantization.observers import NonFinite, Observer
from compression.quantization.probe import Feeds


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Ranges by tensor name, and the tensors that gave none with the reason."""

    ranges: dict[str, Range]
    refused: dict[str, str]
    batches: int


def calibrate(
    model: ir.Model,
    tensors: Sequence[ir.Value],
    feeds: Iterable[Feeds],
    make: Callable[[], Observer],
    context: StepContext,
    *,
    expected: int,
) -> Calibration:
    """Run the model once with the tensors as extra outputs and reduce every batch as it comes.

    The model is as it was when this returns. Inputs of the graph are observed without being outputs.
    """
    observers = {value.name or "": make() for value in tensors}
    fed = {value.name for value in model.graph.inputs}
    refused: dict[str, str] = {}
    batches = 0
    with _extra_outputs(model, [value for value in tensors if value.name not in fed]):
        session = runtime.open_session(
            model,
            device=context.device,
            threads=context.threads,
            outputs=[name for name in observers if name not in fed],
        )
    for feed in feeds:
        _observe({**feed, **runtime.run(session, feed)}, observers, refused)
        batches += 1
        context.report(batches / max(expected, batches), f"calibrating on batch {batches}")
    return Calibration(
        ranges={name: seen.range() for name, seen in observers.items() if name not in refused},
        refused=refused,
        batches=batches,
    )


class _extra_outputs:
    """Makes tensors outputs of the graph for a while."""

    def __init__(self, model: ir.Model, values: Sequence[ir.Value]) -> None:
        self.graph = model.graph
        self.values = [value for value in values if not value.is_graph_output()]

    def __enter__(self) -> None:
        self.graph.outputs.extend(self.values)

    def __exit__(self, *_: object) -> None:
        for _value in self.values:
            self.graph.outputs.pop()


def _observe(seen: Feeds, observers: dict[str, Observer], refused: dict[str, str]) -> None:
    for name, observer in observers.items():
        if name in refused or name not in seen:
            continue
        try:
            observer.observe(seen[name])
        except NonFinite:
            refused[name] = f"the tensor {name!r} takes NaN or infinity on the calibration data"
