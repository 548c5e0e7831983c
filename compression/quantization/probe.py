"""The few inputs on which a step compares candidates: calibration samples where given, synthetic ones
otherwise."""

import itertools
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression import runtime
from compression.errors import CompressionError, DataMissing
from compression.graph import interface
from compression.graph.synthetic import synthesise
from compression.method import Role, StepContext
from compression.quantization.affine import energy, ratio_db

Feeds = dict[str, NDArray[Any]]
Outputs = dict[str, NDArray[Any]]
_SAMPLES = 4


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Inputs, and what the model that a step starts from answers on them."""

    source: Literal["calibration", "synthetic"]
    feeds: tuple[Feeds, ...]
    answers: tuple[Outputs, ...]


def take_probe(
    model: ir.Model,
    context: StepContext,
    *,
    count: int = _SAMPLES,
    start: int = 0,
    seconds: float = float("inf"),
) -> Probe:
    """Draw inputs and run the model on them.

    Args:
        model: what later candidates are compared with.
        context: where the calibration data is, where there is any.
        count: inferences.
        start: samples to leave out at the front, so that what was calibrated on is not judged on; given up
        when
            fewer samples are left.
        seconds: a slow model answers no more inputs after that, but the first four.

    Raises:
        DataMissing: there is no data and no input could be made.
        DataMismatch: the calibration data does not fit.
    """
    source, feeds = draw_feeds(model, context, count=count, start=start)
    session = runtime.open_session(model, device=context.device, threads=context.threads)
    answers: list[Outputs] = []
    began = time.monotonic()
    for feed in feeds:
        if len(answers) >= _SAMPLES and time.monotonic() - began > seconds:
            break
        answers.append(runtime.run(session, feed))
    return Probe(source=source, feeds=feeds[: len(answers)], answers=tuple(answers))


def draw_feeds(
    model: ir.Model, context: StepContext, *, count: int, start: int = 0
) -> tuple[Literal["calibration", "synthetic"], tuple[Feeds, ...]]:
    """Single-sample inputs for the model, and where they come from."""
    inputs = interface(model)[0]
    data = context.data.get(Role.CALIBRATION)
    if data is None:
        made = tuple(itertools.islice(synthesise(inputs, count, context.seed, model), count))
        if not made:
            raise DataMissing("no input could be made from the declared shapes", hint="give calibration data")
        return "synthetic", made
    first = min(start, max(len(data) - count, 0))
    return "calibration", tuple(itertools.islice(data.feeds(inputs, 1, limit=count, start=first), count))


def try_probe(model: ir.Model, context: StepContext, *, count: int = _SAMPLES) -> Probe | str:
    """A probe, or the sentence that says why there is none. For steps that only report on it."""
    try:
        return take_probe(model, context, count=count)
    except CompressionError as error:
        return f"the outputs were not compared: {error.message}"


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """How near a candidate's answers come to the probe's: the worst output counts."""

    sqnr_db: float
    """Over all samples of the worst float output; infinite where all are equal, -infinite where one broke."""
    output: str
    agreement: float
    """The share of equal entries over integer and boolean outputs; 1 without such."""

    @property
    def comparable(self) -> bool:
        return bool(self.output)


def fidelity(probe: Probe, model: ir.Model, context: StepContext) -> Fidelity:
    """Run a candidate on the probe's inputs.

    Raises:
        ResultRejected: the runtime does not take the candidate.
    """
    session = runtime.open_session(model, device=context.device, threads=context.threads)
    return compare(probe.answers, [runtime.run(session, feed) for feed in probe.feeds])


def compare(expected: "tuple[Outputs, ...]", given: "list[Outputs]") -> Fidelity:
    """Outputs of the same inputs, summed over samples before the ratio is taken."""
    worst, name, equal, entries = float("inf"), "", 0, 0
    for output in expected[0]:
        pairs = [(left[output], right[output]) for left, right in zip(expected, given, strict=True)]
        if not isinstance(pairs[0][0], np.ndarray):
            continue
        if not np.issubdtype(pairs[0][0].dtype, np.floating):
            same = [left.shape == right.shape and left == right for left, right in pairs]
            equal += sum(int(np.sum(item)) for item in same)
            entries += sum(max(left.size, 1) for left, _ in pairs)
            continue
        figure = _float_sqnr(pairs)
        if not name or figure < worst:
            worst, name = figure, output
    return Fidelity(sqnr_db=worst, output=name, agreement=equal / entries if entries else 1.0)


def _float_sqnr(pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    signal = noise = 0.0
    for left, right in pairs:
        if left.shape != right.shape:
            return float("-inf")
        known = np.isfinite(left)
        if not np.isfinite(right[known]).all():
            return float("-inf")
        added = energy(left[known], right[known])
        signal, noise = signal + added[0], noise + added[1]
    return ratio_db(signal, noise)
