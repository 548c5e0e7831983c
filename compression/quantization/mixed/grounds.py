"""The samples that precisions are chosen on, and those kept aside that the result has to hold on."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from compression.data import fit_problems
from compression.errors import DataMissing
from compression.evaluation.inputs import Batch
from compression.evaluation.task import Array
from compression.graph import interface
from compression.method import Role, StepContext
from compression.quantization.mixed.settings import MixedOptions

if TYPE_CHECKING:
    from compression.data import Dataset
    from compression.summary import TensorSummary

LABELLED = (Role.EVALUATION, Role.CALIBRATION, Role.TRAINING)
"""Whose labels are taken, the first that has some: what a model has learned from flatters it."""
_BATCH = 32
_FITTED = 256


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Batches in memory, with their labels where there are any."""

    role: Role
    batches: tuple[Batch, ...]
    labels: Array | None = None

    @property
    def samples(self) -> int:
        return sum(batch.samples for batch in self.batches)

    def first(self, samples: int) -> "Ground":
        """As many batches from the front as hold so many samples, at least one."""
        ends = list(itertools.accumulate(batch.samples for batch in self.batches))
        count = 1 + sum(end < samples for end in ends[:-1])
        labels = None if self.labels is None else self.labels[: ends[count - 1]]
        return replace(self, batches=self.batches[:count], labels=labels)


@dataclass(frozen=True, kw_only=True)
class Grounds:
    measuring: Ground
    held_out: Ground
    notes: tuple[str, ...] = ()


def fitted_samples(available: int) -> int:
    """Calibration samples that rounding is fitted to: the first ones, so that a third, and one, is left to judge by."""
    return max(min(_FITTED, available - max(available // 3, 1)), 1)


def find_grounds(model: ir.Model, options: MixedOptions, context: StepContext) -> Grounds:
    """Draw the samples: labelled ones where a metric has a budget, else of the calibration data.

    Raises:
        DataMissing: there is no such data.
        DataMismatch: it does not fit the model.
    """
    inputs = interface(model)[0]
    if options.max_metric_drop is not None:
        return _labelled(inputs, options, context)
    data = calibration_data(context)
    fitted = fitted_samples(len(data))
    first = tuple(_singles(data, inputs, 0, min(options.samples, fitted)))
    aside = tuple(_singles(data, inputs, fitted, options.samples))
    measuring = Ground(role=Role.CALIBRATION, batches=first)
    if not aside:
        note = "there is one calibration sample: the result was judged on what it was chosen by"
        return Grounds(measuring=measuring, held_out=measuring, notes=(note,))
    return Grounds(measuring=measuring, held_out=replace(measuring, batches=aside))


def calibration_data(context: StepContext) -> "Dataset":
    """The dataset to measure on.

    Raises:
        DataMissing: there is none.
    """
    data = context.data.get(Role.CALIBRATION)
    if data is None:
        raise DataMissing(
            "quantize_mixed needs calibration data", hint="name a dataset under data.calibration"
        )
    return data


def labelled_role(data: Mapping[Role, "Dataset"], inputs: tuple["TensorSummary", ...]) -> Role:
    """The role whose labels a metric is measured on.

    Raises:
        DataMissing: no data has labels.
    """
    for role in LABELLED:
        found = data.get(role)
        if found is not None and found.labels is not None and not fit_problems(inputs, found.summary):
            return role
    raise DataMissing(
        "max_metric_drop needs labels, and no dataset of the job that fits the model has an array named 'labels'",
        where="max_metric_drop",
        hint="give labelled evaluation data, or bound the outputs' noise with min_sqnr_db instead",
    )


def _labelled(inputs: tuple["TensorSummary", ...], options: MixedOptions, context: StepContext) -> Grounds:
    role = labelled_role(context.data, inputs)
    data = context.data[role]
    rows = _rows(len(data), options, context, fitted_samples(len(data)) if role is Role.CALIBRATION else 0)
    grounds = [_ground(role, data, inputs, part) for part in rows]
    note = f"the metric was measured on {len(rows[0])} samples of the {role} data, and on {len(rows[1])} kept aside"
    if role is Role.TRAINING:
        note += "; a model does better on what it has learned from, so that a drop elsewhere may be larger"
    if role is Role.EVALUATION:
        note += ": figures on this data are not of samples that played no part"
    return Grounds(measuring=grounds[0], held_out=grounds[1], notes=(note,))


def _rows(count: int, options: MixedOptions, context: StepContext, fitted: int) -> list[np.ndarray]:
    """Numbers of samples to measure on and to keep aside, drawn at random: datasets are often sorted by class.

    None of the first `fitted`, which rounding is fitted to, is kept aside.
    """
    random = np.random.default_rng(context.seed)
    half = max(min(options.metric_samples, count) // 2, 1)
    aside = fitted + random.permutation(count - fitted)[:half] if count > fitted else np.arange(count)[:half]
    others = np.setdiff1d(np.arange(count), aside) if count > 1 else aside
    return [np.sort(random.permutation(others)[:half]), np.sort(aside)]


def _ground(role: Role, data: "Dataset", inputs: tuple["TensorSummary", ...], rows: np.ndarray) -> Ground:
    labels = data.labels
    if labels is None:
        raise ValueError(f"the {role} data has no labels")
    size, fixed = data.batch_size(inputs, _BATCH)
    whole = size == 1 and not fixed
    batches = [
        Batch(feeds=data.take(inputs, part), samples=len(part), batched=not whole)
        for part in np.split(rows, range(size, len(rows), size))
    ]
    return Ground(role=role, batches=tuple(batches), labels=labels[rows])


def _singles(data: "Dataset", inputs: tuple["TensorSummary", ...], start: int, count: int) -> Iterator[Batch]:
    for feeds in data.feeds(inputs, 1, limit=count, start=start):
        yield Batch(feeds=feeds, samples=1, filled=False)
