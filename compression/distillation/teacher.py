"""A teacher's answers: computed once for every sample and kept on disk, where the limit allows."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from compression import runtime
from compression.evaluation.inputs import Batch, Source
from compression.figures import figure
from compression.graph import interface
from compression.method import StepContext

if TYPE_CHECKING:
    import onnx_ir as ir

    from compression.data import Dataset

CACHE_BYTES = 4 * 2**30
"""What the answers may take on disk; those that do not fit are computed anew for every batch."""
FREE_SHARE = 0.5
"""Of the free disk, which the answers may take at most."""
BATCH = 32

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]
Answers = dict[str, Array]
"""By name of an output, a value in between, or a gradient; the first axis counts samples."""
Ask = Callable[[Feeds], Answers]
Kind = Literal["outputs", "gradients"]
"""What comes of one inference, and what of one differentiation: each is kept whole or not at all, since a part
would save no work."""


class Teacher:
    """Answers of a model that does not learn.

    Args:
        model: its inputs bear the names that the data's arrays are matched with.
        wanted: names of outputs, and of values in between, to answer with.
        context: device, threads, and where the cache lies.
        gradients: gives further answers from feeds.
        limit_bytes: of the cache.
    """

    def __init__(
        self,
        model: "ir.Model",
        wanted: Sequence[str],
        context: StepContext,
        *,
        gradients: Ask | None = None,
        limit_bytes: int = CACHE_BYTES,
    ) -> None:
        self.inputs, outputs = interface(model)
        own = {tensor.name for tensor in outputs}
        values = tuple(dict.fromkeys(name for name in wanted if name not in own))
        device = context.device if context.device in runtime.available_devices() else "cpu"
        self._session = runtime.open_session(model, device=device, threads=context.threads, outputs=values)
        self._wanted = frozenset(wanted)
        self._asking: dict[Kind, Ask] = {"outputs": self._infer}
        if gradients is not None:
            self._asking["gradients"] = gradients
        self._folder, self._limit = context.workdir, limit_bytes
        self._kept: dict[Kind, Answers] = {}
        self._left_out: dict[Kind, str] = {}

    @property
    def cached(self) -> frozenset[str]:
        """Names of the answers that lie on disk."""
        return frozenset(name for kept in self._kept.values() for name in kept)

    def notes(self) -> Iterator[str]:
        """Which answers are computed anew for every batch, and why; after `prepare`."""
        for kind, reason in self._left_out.items():
            yield f"the teacher's {kind} were computed anew for every batch: {reason}"

    def compute(self, feeds: Feeds, rows: int) -> Answers:
        """The answers for one batch, of which the first `rows` entries are samples; floats as float32.

        Raises:
            DataMismatch: the model does not run on the feeds.
        """
        return {name: array for kind in self._asking for name, array in self._ask(kind, feeds, rows).items()}

    def prepare(self, dataset: "Dataset", report: Callable[[float], None]) -> None:
        """Goes once over the data and keeps what fits, outputs before gradients."""
        source = Source(origin="calibration", inputs=self.inputs, dataset=dataset, batch_limit=BATCH)
        start, kinds = 0, tuple(self._asking)
        for batch in source.batches():
            found = {kind: self._ask(kind, batch.feeds, batch.samples) for kind in kinds}
            if start == 0:
                self._open(found, batch, len(dataset))
            self._write(found, start, batch.samples)
            start += batch.samples
            kinds = tuple(self._kept)
            if not kinds:
                break
            report(start / len(dataset))

    def answers(self, indices: Array, feeds: Feeds) -> Answers:
        """For the samples `indices`, which the first rows of `feeds` hold."""
        found: Answers = {}
        for kind in self._asking:
            if kind in self._kept:
                found |= {name: np.asarray(array[indices]) for name, array in self._kept[kind].items()}
            else:
                found |= self._ask(kind, feeds, len(indices))
        return found

    def _infer(self, feeds: Feeds) -> Answers:
        found = runtime.run(self._session, feeds)
        return {name: array for name, array in found.items() if name in self._wanted}

    def _ask(self, kind: Kind, feeds: Feeds, rows: int) -> Answers:
        return {name: _plain(array[:rows]) for name, array in self._asking[kind](feeds).items()}

    def _open(self, found: Mapping[Kind, Answers], batch: Batch, samples: int) -> None:
        """Files for the kinds that fit, until the limit is reached."""
        left = min(self._limit, int(shutil.disk_usage(self._folder).free * FREE_SHARE))
        for kind, answers in found.items():
            needed = sum(samples * array[:1].nbytes for array in answers.values())
            if not batch.batched or any(len(array) != batch.samples for array in answers.values()):
                self._left_out[kind] = "they have no entry per sample"
            elif needed > left:
                self._left_out[kind] = _too_large(needed, left)
            else:
                left -= needed
                self._kept[kind] = {
                    name: self._file(f"{kind}_{index}", array, samples)
                    for index, (name, array) in enumerate(answers.items())
                }

    def _file(self, name: str, array: Array, samples: int) -> Array:
        path = self._folder / f"teacher_{name}.npy"
        return np.lib.format.open_memmap(
            path, mode="w+", dtype=array.dtype, shape=(samples, *array.shape[1:])
        )

    def _write(self, found: Mapping[Kind, Answers], start: int, count: int) -> None:
        """Answers whose shapes change from batch to batch are not kept."""
        for kind, kept in list(self._kept.items()):
            answers = found[kind]
            if any(answers[name].shape != (count, *array.shape[1:]) for name, array in kept.items()):
                self._left_out[kind] = "their shapes change from batch to batch"
                self._drop(kind)
                continue
            for name, array in kept.items():
                array[start : start + count] = answers[name]

    def _drop(self, kind: Kind) -> None:
        files = [getattr(array, "filename", None) for array in self._kept.pop(kind).values()]
        for file in files:
            if file is not None:
                Path(file).unlink(missing_ok=True)


def _too_large(needed: int, left: int) -> str:
    return f"all take {figure(needed, 'bytes')}, and their cache has {figure(left, 'bytes')}"


def _plain(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype.kind not in "biu" else array
