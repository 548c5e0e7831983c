"""Learned rounding of all layers of a quantized model, group after group from the inputs on."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from compression.method import StepContext
from compression.quantization.affine import sqnr_db
from compression.quantization.probe import Feeds
from compression.quantization.recovery.adaround import Learned, Problem, learn_rounding
from compression.quantization.recovery.bias import Draw, Write
from compression.quantization.recovery.gathering import Rows, gather_rows
from compression.quantization.recovery.rows import Floats, from_rows, row_shape, to_rows
from compression.quantization.regions import constant_of, fused_output
from compression.quantization.storage import as_numpy

ROWS = 2048
"""Drawn for each layer over all samples, about; every fourth sample's are held out."""
_LAYER_BYTES = 48 << 20
_GROUP_BYTES = 256 << 20
HELD = 4
LATE = "the time was up"


@dataclass(kw_only=True)
class LearnedRounding:
    """Learns how the weights of layers are rounded, and writes what they come to into a model of floats."""

    floats: ir.Model
    """Stays as it is."""
    layers: Sequence[str]
    write: Write
    draw: Draw
    """One sample a feed."""
    samples: int
    context: StepContext
    steps: int
    seconds: float
    """Layers whose turn has not come by then are rounded to the nearest."""
    errors: dict[str, float] = field(default_factory=dict)
    """By learned layer, the error on held-out rows over that of rounding to the nearest."""
    sqnr_db: dict[str, float] = field(default_factory=dict)
    """Of the weights that were written."""
    left: dict[str, str] = field(default_factory=dict)
    """Layers that are rounded to the nearest, with the reason."""

    def learn(self) -> ir.Model:
        """The floats with these layers' weights on their grids, so that rounding to the nearest gives the integers
        learned."""
        model, end = self.floats.clone(), time.monotonic() + self.seconds
        done, nodes = 0, {node.name: node for node in model.graph}
        for group in self._groups():
            if time.monotonic() > end:
                self.left |= dict.fromkeys(group, LATE)
                continue
            quantized = model.clone()
            self.write(quantized)
            rows = gather_rows(self.floats, quantized, group, self._feeds(), self.context)
            for name in group:
                self.context.report(done / len(self.layers), f"learning the rounding of {name}")
                done += 1
                if time.monotonic() > end:
                    self.left[name] = LATE
                else:
                    self._learn(nodes[name], quantized, rows.pop(name), done)
        return model

    def _groups(self) -> Iterator[Mapping[str, int]]:
        """Layers in graph order whose rows fit into memory together, with the rows to draw from a sample."""
        chosen, group, held = set(self.layers), dict[str, int](), 0
        for node in self.floats.graph:
            name = node.name or ""
            if name not in chosen:
                continue
            shape = row_shape(node)
            if isinstance(shape, str):
                self.left[name] = shape
                continue
            rows = max(min(ROWS, _LAYER_BYTES // shape.row_bytes) // self.samples, 1)
            need = 2 * rows * self.samples * shape.row_bytes
            if group and held + need > _GROUP_BYTES:
                yield group
                group, held = {}, 0
            group[name] = rows
            held += need
        if group:
            yield group

    def _feeds(self) -> Iterator[Feeds]:
        """Samples to learn from first, then those held out: every fourth."""
        for held in (False, True):
            for number, feed in enumerate(self.draw()):
                if (number % HELD == HELD - 1) == held:
                    yield feed

    def _learn(self, node: ir.Node, quantized: ir.Model, rows: Rows, number: int) -> None:
        name = node.name or ""
        problem = self._problem(node, quantized, rows)
        if isinstance(problem, str):
            self.left[name] = problem
            return
        with _threads(self.context.threads):
            found = learn_rounding(problem, steps=self.steps, seed=self.context.seed + number)
        if not found.error < 1:
            self.left[name] = f"learning did not help on rows held out ({found.error:.2f}x the error)"
            return
        self.errors[name] = found.error
        self._store(node, problem, found)

    def _problem(self, node: ir.Node, quantized: ir.Model, rows: Rows) -> Problem | str:
        if not (np.isfinite(rows.floats).all() and np.isfinite(rows.quantized).all()):
            return "its inputs are not finite on the calibration data"
        held = rows.floats.shape[1] * (self.samples // HELD) // self.samples
        if not held or rows.floats.shape[1] - held < 1:
            return "the calibration data gives too few rows"
        weight = to_rows(node, _array(node, 1))
        twin = next(item for item in quantized.graph if item.name == node.name)
        restore = twin.inputs[1].producer() if twin.inputs[1] else None
        if restore is None:
            return "its weight is not quantized"
        scale = _array(restore, 1).reshape(weight.shape[0], weight.shape[1], 1)
        bias = (
            _array(node, 2) if len(node.inputs) > 2 and node.inputs[2] else np.zeros(scale.size, np.float32)
        )
        levels = int(np.abs(_array(restore, 0).astype(int) - _array(restore, 2)[0]).max())
        return Problem(
            weight=np.ascontiguousarray(weight, np.float32),
            scale=np.ascontiguousarray(scale, np.float32),
            levels=levels,
            bias=bias.reshape(weight.shape[0], 1, weight.shape[1]).astype(np.float32),
            bounds=_bounds(node),
            floats=rows.floats,
            quantized=rows.quantized,
            held=held,
        )

    def _store(self, node: ir.Node, problem: Problem, found: Learned) -> None:
        value = node.inputs[1]
        if value is None or value.const_value is None:
            raise ValueError(f"{node.name} has no weight")
        before = _array(node, 1)
        made = from_rows(node, found.integers * problem.scale, before.shape).astype(np.float32)
        self.sqnr_db[node.name or ""] = sqnr_db(before, made)
        value.const_value = ir.tensor(made, name=value.const_value.name)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """As many as the step may use: sums come out alike on every machine only with as many."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(count, 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _array(node: ir.Node, place: int) -> Floats:
    tensor = constant_of(node.inputs[place])
    if tensor is None:
        raise ValueError(f"input {place} of {node.name} is no constant")
    return as_numpy(tensor)


def _bounds(node: ir.Node) -> tuple[float, float]:
    """What a Relu or Clip that belongs to the layer cuts its output to."""
    after = fused_output(node).producer()
    low, high = -np.inf, np.inf
    if after is None or after is node:
        return low, high
    if after.op_type == "Relu":
        return 0.0, high
    limits = [constant_of(value) for value in (*after.inputs[1:], None, None)][:2]
    if any(
        value is not None and limit is None for value, limit in zip(after.inputs[1:], limits, strict=False)
    ):
        return low, high
    bottom, top = (None if limit is None else float(as_numpy(limit)) for limit in limits)
    return low if bottom is None else bottom, high if top is None else top
