"""Means and covariances of what layers see, in one or few passes over calibration data.

Sums are kept in float64, one matrix a layer: memory does not grow with the samples. Layers whose matrices do not fit
together wait for another pass; finished ones lie on disk until their layer's turn.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression import runtime
from compression.graph import interface
from compression.lowrank.finding import Place
from compression.method import Role, StepContext
from compression.quantization.recovery.rows import draw, positions

Doubles = NDArray[np.float64]
GROUP_BYTES = 512 << 20
"""Of matrices summed up in one pass."""
MAX_WIDTH = 6144
"""Inputs times taps; beyond it a matrix takes over 300 MB and its decomposition minutes."""
_BATCH = 8
_ROWS_PER_INPUT = 32
_FEWEST_ROWS = 1 << 15
_SHRINK = 0.01


@dataclass(frozen=True, kw_only=True)
class Moments:
    """What is known of a layer's inputs, or of the patches that a convolution multiplies."""

    mean: Doubles
    covariance: Doubles
    rows: int

    @property
    def second(self) -> Doubles:
        """E[x x^T]."""
        return self.covariance + np.outer(self.mean, self.mean)

    def norm_matrix(self, *, centred: bool) -> Doubles:
        """The covariance where a bias takes up the mean, else the second moment.

        Rows that are few for their width tell little of directions they hardly went: a hundredth of width / rows of
        the mean variance is added for all of them.
        """
        matrix = self.covariance if centred else self.second
        width = len(matrix)
        ridge = _SHRINK * min(width / max(self.rows, 1), 1.0) * float(np.trace(matrix)) / width
        return matrix + ridge * np.eye(width)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Moments on disk."""

    file: Path

    def read(self) -> Moments:
        with np.load(self.file) as found:
            return Moments(mean=found["mean"], covariance=found["covariance"], rows=int(found["rows"]))


class _Sums:
    """Shifted sums: x - x0 with x0 the first mean, so that nothing is lost where the mean is large."""

    def __init__(self, width: int) -> None:
        self.rows, self.spoilt = 0, False
        self.shift: Doubles | None = None
        self.total = np.zeros(width)
        self.product = np.zeros((width, width))

    def add(self, rows: NDArray[Any]) -> None:
        part = rows.astype(np.float64)
        if not np.isfinite(part).all():
            self.spoilt = True
        if self.spoilt or not len(part):
            return
        if self.shift is None:
            self.shift = part.mean(axis=0)
        part -= self.shift
        self.total += part.sum(axis=0)
        self.product += part.T @ part
        self.rows += len(part)

    def moments(self) -> Moments:
        offset = self.total / self.rows
        mean = offset if self.shift is None else offset + self.shift
        covariance = self.product / self.rows - np.outer(offset, offset)
        return Moments(mean=mean, covariance=(covariance + covariance.T) / 2, rows=self.rows)


def unseen(place: Place, model: ir.Model) -> str | None:
    """Why a layer's inputs cannot be gathered; None where they can."""
    width = place.geometry.inputs * int(np.prod(place.geometry.kernel, dtype=int))
    for layer in place.layers:
        given = layer.node.inputs[0]
        if layer.graph is not model.graph:
            return "it stands in a body, whose inputs cannot be seen"
        if given is None or not given.name or ir.convenience.get_const_tensor(given) is not None:
            return "its input has no name"
        if layer.node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            return "its padding depends on its input"
    return f"it has {width} inputs and taps, more than {MAX_WIDTH}" if width > MAX_WIDTH else None


def gather(
    model: ir.Model, places: Sequence[Place], context: StepContext, *, most: int
) -> tuple[dict[str, Stored], dict[str, str]]:
    """Moments by the name of the place, and why there are none for others. The model stays as it is.

    Raises:
        DataMismatch: the data does not fit the model.
    """
    stored: dict[str, Stored] = {}
    refused: dict[str, str] = {}
    groups = list(grouped(places, _width))
    for number, group in enumerate(groups):
        sums = {place.name: _Sums(_width(place)) for place in group}
        for done in _pass(model, group, sums, context, most):
            share = (number + done) / len(groups)
            context.report(share, f"gathering the inputs of {len(group)} layers")
        for count, (name, found) in enumerate(sums.items()):
            if found.spoilt or not found.rows:
                refused[name] = "its inputs on the calibration data hold NaN or infinity, or nothing"
                continue
            file = context.workdir / f"moments-{number}-{count}.npz"
            moments = found.moments()
            np.savez(file, mean=moments.mean, covariance=moments.covariance, rows=moments.rows)
            stored[name] = Stored(file=file)
    return stored, refused


def _pass(
    model: ir.Model, group: Sequence[Place], sums: Mapping[str, _Sums], context: StepContext, most: int
) -> Iterator[float]:
    data, inputs = context.data[Role.CALIBRATION], interface(model)[0]
    total = min(len(data), most)
    random = np.random.default_rng(context.seed)
    fed = {tensor.name for tensor in inputs}
    taps = [(place, layer.node, _read(layer.node)) for place in group for layer in place.layers]
    session = runtime.open_session(
        model,
        device=context.device,
        threads=context.threads,
        outputs=list(dict.fromkeys(name for _, _, name in taps if name not in fed)),
    )
    batches = -(-total // _BATCH)
    for count, feed in enumerate(data.feeds(inputs, _BATCH, limit=total)):
        values = {**feed, **runtime.run(session, feed)}
        for place, node, name in taps:
            sums[place.name].add(_rows(place, node, values[name], batches, random))
        yield min((count + 1) / max(batches, 1), 1.0)


def _rows(
    place: Place, node: ir.Node, value: NDArray[Any], batches: int, random: np.random.Generator
) -> NDArray[Any]:
    """Rows of a batch; of many, so many at random that all batches together give enough."""
    width = _width(place)
    if value.size == 0:
        return np.zeros((0, width))
    enough = max(_FEWEST_ROWS, _ROWS_PER_INPUT * width)
    where = positions(node, value, -(-enough // max(batches, 1)), random)
    return draw(node, value, where).reshape(-1, width)


def _width(place: Place) -> int:
    return place.geometry.inputs * int(np.prod(place.geometry.kernel, dtype=int))


def grouped(places: Sequence[Place], width: Callable[[Place], int]) -> Iterator[list[Place]]:
    """Places whose square matrices of that width fit into memory together."""
    group: list[Place] = []
    held = 0
    for place in places:
        need = 2 * 8 * width(place) ** 2
        if group and held + need > GROUP_BYTES:
            yield group
            group, held = [], 0
        group.append(place)
        held += need
    if group:
        yield group


def _read(node: ir.Node) -> str:
    """The name of what a layer computes from."""
    value = node.inputs[0]
    return "" if value is None else value.name or ""
