"""Whole models put to the trainable view: the onnx package's own architectures, and real ones in a folder."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch

from compression.errors import CompressionError
from compression.graph import clean, interface, load
from compression.graph.synthetic import synthesise
from compression.graph.trainable import TrainableGraph, check_agreement, obstacles, write_back
from compression.graph.trainable.elements import computed_tensor
from compression.runtime import open_session, run

LIGHT = ("squeezenet", "shufflenet", "resnet50", "inception_v1", "inception_v2", "densenet121")
TIMED_RUNS = 5


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One model. `error` is relative to the largest entry of an output; times are of one sample, on one processor."""

    name: str
    nodes: int
    reason: str = ""
    weights: int = 0
    with_gradient: int = 0
    error: float = float("nan")
    rewritten: int = 0
    forward_ms: float = float("nan")
    step_ms: float = float("nan")
    onnxruntime_ms: float = float("nan")


def light_models() -> Iterator[tuple[str, ir.Model]]:
    """Architectures that come with the onnx package, without weights: random ones are put in their place."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    for name in LIGHT:
        model = load(folder / f"light_{name}.onnx")
        fill(model, np.random.default_rng(0))
        _end_before_softmax(model)
        yield name, clean(model)


def fill(model: ir.Model, rng: np.random.Generator) -> None:
    """Puts random weights in place of ConstantOfShape, in the scale of He et al. 2015 for what is a kernel."""
    for node in list(model.graph):
        shape = node.inputs[0].const_value if node.op_type == "ConstantOfShape" and node.inputs[0] else None
        if shape is None:
            continue
        sizes = [int(size) for size in shape.numpy()]
        fan_in = max(int(np.prod(sizes[1:])), 1)
        scale = np.sqrt(2 / fan_in) if len(sizes) > 1 else 0.1
        array = (rng.normal(size=sizes) * scale).astype(np.float32)
        _replace(model, node, np.abs(array) + 0.5 if len(sizes) == 1 else array)


def _end_before_softmax(model: ir.Model) -> None:
    """With random weights one class takes all, and nothing before it could be compared."""
    (output,) = model.graph.outputs
    last = output.producer()
    scores = last.inputs[0] if last is not None and last.op_type == "Softmax" else None
    if scores is not None:
        scores.type = output.type
        model.graph.outputs[0] = scores


def _replace(model: ir.Model, node: ir.Node, array: np.ndarray) -> None:
    name = node.outputs[0].name or ""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
    )
    ir.convenience.replace_all_uses_with(node.outputs[0], value)
    model.graph.remove(node, safe=True)
    model.graph.register_initializer(value)


def measure(name: str, model: ir.Model) -> Measured:
    """Imports, compares, goes one training step's way, and writes back what did not change."""
    nodes = sum(1 for _ in model.graph.all_nodes())
    found = obstacles(model)
    if found:
        first = found[0]
        return Measured(name=name, nodes=nodes, reason=f"{first.count} x {first.operator}: {first.reason}")
    try:
        return _measure(name, nodes, model)
    except CompressionError as error:
        return Measured(name=name, nodes=nodes, reason=error.message)


def made_up(model: ir.Model) -> dict[str, np.ndarray]:
    """One sample. Integer data is drawn below 256 where the model takes that, so that it is not nearly constant."""
    (feeds,) = synthesise(interface(model)[0], 1, 0, model)
    rng = np.random.default_rng(0)
    lively = {
        name: rng.integers(0, 256, array.shape).astype(array.dtype)
        if array.dtype.kind in "iu" and array.size > 16
        else array
        for name, array in feeds.items()
    }
    try:
        run(open_session(model, device="cpu", threads=1), lively)
    except CompressionError:
        return feeds
    return lively


def _measure(name: str, nodes: int, model: ir.Model) -> Measured:
    feeds = made_up(model)
    view = TrainableGraph(model).eval()
    error = check_agreement(view, model, feeds)
    rewritten = write_back(view, model)
    tensors = {key: computed_tensor(array) for key, array in feeds.items()}
    session = open_session(model, device="cpu", threads=torch.get_num_threads())

    def forward() -> None:
        with torch.no_grad():
            view(tensors)

    def step() -> None:
        view.zero_grad()
        outputs = [item for item in view(tensors).values() if isinstance(item, torch.Tensor)]
        sum(item.square().mean() for item in outputs if item.requires_grad).backward()

    return Measured(
        name=name,
        nodes=nodes,
        error=error,
        rewritten=rewritten,
        forward_ms=_milliseconds(forward),
        step_ms=_milliseconds(step),
        onnxruntime_ms=_milliseconds(lambda: run(session, feeds)),
        weights=len(view.weights),
        with_gradient=sum(_has_gradient(weight) for weight in view.weights.values()),
    )


def _has_gradient(weight: torch.nn.Parameter) -> bool:
    return weight.grad is not None and bool(torch.isfinite(weight.grad).all())


def _milliseconds(action: Callable[[], object]) -> float:
    """Processor time of the quickest of a few runs; on one thread it is hardly longer beside other work."""
    times = []
    for _ in range(TIMED_RUNS):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return 1000 * min(times)
