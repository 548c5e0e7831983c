"""A teacher's answers: computed once for every sample and kept on disk as far as the limit allows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compression import runtime
from compression.evaluation.inputs import Batch, Source
from compression.graph import interface
from compression.method import StepContext

if TYPE_CHECKING:
    import onnx_ir as ir

    from compression.data import Dataset

CACHE_BYTES = 4 * 2**30
"""What the answers may take on disk; values that do not fit are computed anew for every batch."""
BATCH = 32
GRADIENT = "gradient:"
"""Before an input's name: the gradient of the teacher's score with respect to it."""

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]
Answers = dict[str, Array]
"""By name of an output, a value in between, or a gradient; the first axis counts samples."""
Gradients = Callable[[Feeds, Answers], Answers]


class Teacher:
    """Answers of a model that does not learn.

    Args:
        model: its inputs bear the names that the data's arrays are matched with.
        values: values in between to answer with beside the outputs.
        context: device, threads, progress, and where the cache lies.
        gradients: gives further answers from feeds and outputs.
        limit_bytes: of the cache.
    """

    def __init__(
        self,
        model: "ir.Model",
        values: Sequence[str],
        context: StepContext,
        *,
        gradients: Gradients | None = None,
        limit_bytes: int = CACHE_BYTES,
    ) -> None:
        self.inputs, outputs = interface(model)
        own = {tensor.name for tensor in outputs}
        self._values = tuple(dict.fromkeys(value for value in values if value not in own))
        self._gradients = gradients
        self._context = context
        self._limit = limit_bytes
        device = context.device if context.device in runtime.available_devices() else "cpu"
        self._session = runtime.open_session(
            model, device=device, threads=context.threads, outputs=self._values
        )
        self._kept: dict[str, Array] = {}
        self._missing = True

    @property
    def cached(self) -> frozenset[str]:
        """Names of the answers that lie on disk."""
        return frozenset(self._kept)

    @property
    def complete(self) -> bool:
        """Whether no answer needs to be computed again."""
        return not self._missing

    def compute(self, feeds: Feeds, rows: int) -> Answers:
        """The answers for one batch, of which the first `rows` entries are samples; floats as float32.

        Raises:
            DataMismatch: the model does not run on the feeds.
        """
        found = {
            name: array
            for name, array in runtime.run(self._session, feeds).items()
            if isinstance(array, np.ndarray) and array.ndim
        }
        if self._gradients is not None:
            found |= self._gradients(feeds, found)
        return {name: _plain(array[:rows]) for name, array in found.items()}

    def prepare(self, dataset: "Dataset", report: Callable[[float], None]) -> None:
        """Goes once over the data and keeps what fits: outputs first, then gradients, then values."""
        source = Source(origin="calibration", inputs=self.inputs, dataset=dataset, batch_limit=BATCH)
        start = 0
        for batch in source.batches():
            answers = self.compute(batch.feeds, batch.samples)
            if start == 0:
                self._open(self._fitting(answers, batch, len(dataset)), len(dataset))
            self._write(answers, start, batch.samples)
            start += batch.samples
            report(start / len(dataset))
            if not self._kept:
                break

    def answers(self, indices: Array, feeds: Feeds) -> Answers:
        """For the samples `indices`, which the first rows of `feeds` hold."""
        kept = {name: np.asarray(array[indices]) for name, array in self._kept.items()}
        if not self._missing:
            return kept
        return {**self.compute(feeds, len(indices)), **kept}

    def _fitting(self, answers: Answers, batch: Batch, samples: int) -> Iterator[tuple[str, Array]]:
        """Those with one entry per sample, in order of their use, until the limit is reached."""
        order = sorted(answers, key=lambda name: name in self._values)
        left = self._limit
        self._missing = False
        for name in order:
            array = answers[name]
            needed = samples * array[:1].nbytes
            if not batch.batched or len(array) != batch.samples or needed > left:
                self._missing = True
                continue
            left -= needed
            yield name, array

    def _open(self, chosen: Iterator[tuple[str, Array]], samples: int) -> None:
        for index, (name, array) in enumerate(chosen):
            path = self._context.workdir / f"teacher_{index}.npy"
            self._kept[name] = np.lib.format.open_memmap(
                path, mode="w+", dtype=array.dtype, shape=(samples, *array.shape[1:])
            )

    def _write(self, answers: Answers, start: int, count: int) -> None:
        """A value whose shape changes from batch to batch is not kept."""
        for name, kept in list(self._kept.items()):
            array = answers[name]
            if array.shape != (count, *kept.shape[1:]):
                self._missing = True
                self._drop(name)
            else:
                kept[start : start + count] = array

    def _drop(self, name: str) -> None:
        array = self._kept.pop(name)
        filename = getattr(array, "filename", None)
        del array
        if filename is not None:
            Path(filename).unlink(missing_ok=True)


def _plain(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype.kind not in "biu" else array
