"""Checks what a step made: the same interface, opens in onnxruntime, and runs once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compression.data import Dataset, Feeds
from compression.errors import CompressionError, DataMissing, ResultRejected
from compression.method import Device
from compression.summary import TensorSummary

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One inference that the original was seen to run; None where no input could be made."""

    feeds: Feeds | None
    device: Device
    threads: int

    def check(self, model: Path, step: str) -> None:
        """Opens the model a step wrote and runs it once.

        Raises:
            ResultRejected: it cannot; the message names the step.
        """
        try:
            run_once(model, self.feeds, self.device, self.threads)
        except CompressionError as error:
            raise ResultRejected(
                f"what {step} made does not run: {error.message}", where=step, hint=error.hint
            ) from error


def find_probe(
    original: Path,
    model: "ir.Model",
    inputs: Sequence[TensorSummary],
    datasets: Iterable[Dataset],
    *,
    device: Device,
    threads: int,
    seed: int,
) -> Probe:
    """An input that the original runs on: the first sample of a dataset, else one made up from the shapes.

    Raises:
        CompressionError: the original does not run on its own data, or does not open at all.
    """
    for dataset in datasets:
        feeds = next(dataset.feeds(inputs, 1, limit=1))
        run_once(original, feeds, device, threads)
        return Probe(feeds=feeds, device=device, threads=threads)
    from compression.graph.synthetic import synthesise

    try:
        feeds = next(iter(synthesise(inputs, 1, seed, model)))
    except DataMissing:
        run_once(original, None, device, threads)
        return Probe(feeds=None, device=device, threads=threads)
    return Probe(feeds=feeds, device=device, threads=threads)


def run_once(model: Path, feeds: Feeds | None, device: Device, threads: int) -> None:
    from compression.runtime import open_session, run

    session = open_session(model, device=device, threads=threads)
    if feeds is not None:
        run(session, feeds)
