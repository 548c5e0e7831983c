"""What an autoencoder learns from: rows of features on disk, and whole samples held out to measure on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compression import runtime
from compression.autoencoder.layout import Layout, Unit, choose_layout
from compression.data.dtypes import castable
from compression.errors import DataMismatch, NotApplicable
from compression.evaluation.inputs import Source
from compression.graph import interface
from compression.method import StepContext

if TYPE_CHECKING:
    import onnx_ir as ir

    from compression.data import Dataset

ROWS_BYTES = 2 * 2**30
"""What the rows may take on disk; of samples with many positions then fewer are drawn, each by lot."""
MOST_ROWS = 4_000_000
"""Rows to learn from, so that their order in every epoch stays small in memory; of samples there may be more."""
HELD_OUT_BYTES = 256 * 2**20
BATCH = 64

Array = npt.NDArray[Any]
Report = Callable[[float], None]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """float32. `rows` [R, features] lie on disk; `held_out` [N, *shape] are samples of which they hold nothing."""

    layout: Layout
    rows: Array
    held_out: Array
    drawn: int
    """Positions of each sample among the rows."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Batches of samples in the order of the data, how many there are in all, and the axis of their features."""

    batches: Callable[[], Iterator[Array]]
    samples: int
    axis: Callable[[tuple[int, ...]], int]


def array_stream(dataset: "Dataset", name: str) -> Stream:
    """The dataset's array `name`; features lie on the last axis.

    Raises:
        NotApplicable: there is no such array, it holds text, or its samples differ in shape.
    """
    summary = dataset.summary.array(name)
    if summary is None:
        names = ", ".join(array.name for array in dataset.summary.arrays)
        raise NotApplicable(
            f"the training data has no array {name!r}", where="array", hint=f"arrays: {names}"
        )
    if summary.ragged or not castable(summary.dtype, "float32"):
        raise NotApplicable(
            f"{name!r} holds {summary.dtype}{' of several shapes' if summary.ragged else ''}",
            where="array",
            hint="an autoencoder takes numbers, all samples of one shape",
        )

    def batches() -> Iterator[Array]:
        for start in range(0, len(dataset), BATCH):
            yield dataset.column(name).read(start, min(start + BATCH, len(dataset)))

    return Stream(batches=batches, samples=len(dataset), axis=len)


def activation_stream(
    model: "ir.Model",
    value: str,
    axis: Callable[[tuple[int, ...]], int],
    dataset: "Dataset",
    context: StepContext,
) -> Stream:
    """A value in between, computed on the data.

    Raises:
        NotApplicable: its first axis does not count samples, or it holds no floats.
        DataMismatch: the data does not fit the model.
    """
    source = Source(origin="calibration", inputs=interface(model)[0], dataset=dataset, batch_limit=BATCH)
    session = runtime.open_session(model, device=context.device, threads=context.threads, outputs=[value])

    def batches() -> Iterator[Array]:
        for batch in source.batches():
            found = runtime.run(session, batch.feeds).get(value)
            if not (batch.batched and isinstance(found, np.ndarray) and _counts(found, batch.rows)):
                raise NotApplicable(
                    f"the value {value!r} has no float entries for each sample",
                    where=value,
                    hint="name a layer whose output has the batch first",
                )
            yield found[: batch.samples]

    return Stream(batches=batches, samples=source.samples, axis=axis)


def collect(
    stream: Stream, unit: Unit, held_out: float, *, workdir: Path, seed: int, report: Report
) -> Samples:
    """Goes once over the stream.

    Args:
        stream: the samples.
        unit: what becomes a row.
        held_out: share of the samples to measure on, drawn by the seed; one at least.
        workdir: where the rows go.
        seed: of all drawing.
        report: hears the fraction done.

    Raises:
        DataMismatch: fewer than two samples, or samples of several shapes.
        NotApplicable: NaN or infinity among them.
    """
    if stream.samples < 2:
        raise DataMismatch("an autoencoder needs two samples at least", where="data.training")
    rng = np.random.default_rng(seed)
    out = np.zeros(stream.samples, dtype=bool)
    out[rng.permutation(stream.samples)[: max(1, round(held_out * stream.samples))]] = True
    writer: _Writer | None = None
    seen = 0
    for batch in stream.batches():
        if writer is None:
            writer = _Writer(batch, stream, unit, int((~out).sum()), workdir)
        chosen = out[seen : seen + len(batch)]
        writer.add(_checked(batch, writer.layout.shape), chosen, rng)
        seen += len(batch)
        report(seen / stream.samples)
    assert writer is not None
    return writer.finished()


def _counts(found: Array, rows: int) -> bool:
    return found.ndim > 1 and found.dtype.kind == "f" and len(found) == rows


class _Writer:
    """Fills the rows and the held-out samples."""

    def __init__(self, first: Array, stream: Stream, unit: Unit, learned: int, workdir: Path) -> None:
        shape = first.shape[1:] or (1,)
        self.layout = choose_layout(shape, stream.axis((len(first), *shape)[1:]), unit)
        room = min(ROWS_BYTES // (4 * self.layout.features * learned), MOST_ROWS // learned)
        self._drawn = max(1, min(self.layout.positions, room))
        self._rows = np.lib.format.open_memmap(
            workdir / "rows.npy",
            mode="w+",
            dtype=np.float32,
            shape=(learned * self._drawn, self.layout.features),
        )
        self._filled = 0
        self._held_out: list[Array] = []
        self._room = max(1, HELD_OUT_BYTES // max(first[:1].nbytes, 1))

    def add(self, batch: Array, out: Array, rng: np.random.Generator) -> None:
        if self._room > 0:
            self._held_out.append(batch[out][: self._room])
            self._room -= int(out.sum())
        for sample in batch[~out]:
            rows = self.layout.rows(sample[None])
            if self._drawn < len(rows):
                rows = rows[np.sort(rng.choice(len(rows), self._drawn, replace=False))]
            self._rows[self._filled : self._filled + len(rows)] = rows
            self._filled += len(rows)

    def finished(self) -> Samples:
        self._rows.flush()
        return Samples(
            layout=self.layout,
            rows=self._rows,
            held_out=np.concatenate(self._held_out),
            drawn=self._drawn,
        )


def _checked(batch: Array, shape: tuple[int, ...]) -> Array:
    plain = batch.astype(np.float32).reshape(len(batch), *(batch.shape[1:] or (1,)))
    if plain.shape[1:] != shape:
        raise DataMismatch(f"samples differ in shape: {list(shape)} and {list(plain.shape[1:])}")
    if not np.isfinite(plain).all():
        raise NotApplicable("there are NaN or infinite numbers among the samples")
    return plain
