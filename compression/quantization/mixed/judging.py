"""What a mixture does: noise in the outputs, loss on labels, and whether the budgets hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

import numpy as np

from compression.errors import NotApplicable
from compression.evaluation.metrics import CLASSIFICATION, chosen_metrics, score
from compression.evaluation.outputs import Outputs
from compression.evaluation.predictions import Predictions
from compression.evaluation.task import IGNORED_LABEL, Array, Task, find_task, squeezed
from compression.quantization.mixed.grounds import Ground
from compression.quantization.mixed.settings import MixedOptions
from compression.quantization.probe import compare

BROKEN = 1e6
"""Noise over signal of outputs that are no numbers any more."""
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Where a mixture stands."""

    holds: bool
    noise: float
    """Of the worst output, over its signal."""
    output: str
    metric_drop: float | None = None

    @property
    def sqnr_db(self) -> float:
        return -10 * log10(max(self.noise, 1e-30))


class Judge:
    """Compares answers on a ground with the original's."""

    def __init__(self, ground: Ground, expected: Sequence[Outputs], options: MixedOptions) -> None:
        """`expected`: what the original answers to each batch.

        Raises:
            NotApplicable: the labels fit no output, or the metric does not fit them.
        """
        self.ground = ground
        self._expected = tuple(_numbers(outputs) for outputs in expected)
        self._options = options
        self._task: Task | None = None
        self.metric: str | None = None
        if ground.labels is not None:
            self._task = find_task(ground.labels, expected[0])
            wanted = None if options.metric is None else (options.metric,)
            self.metric = chosen_metrics(self._task, wanted)[0]
            self._before = self._predictions(self._expected)
            self._is_probability = _are_probabilities(self._task, self._expected)
            self._loss = self._mean_loss(self._expected)

    def first(self, samples: int) -> "Judge":
        """The same on fewer samples."""
        cut = self.ground.first(samples)
        return Judge(cut, self._expected[: len(cut.batches)], self._options)

    @property
    def by_labels(self) -> bool:
        return self._task is not None

    def harm(self, given: Sequence[Outputs]) -> float:
        """What sensitivity is measured by: the rise of the loss on labels, or else the noise. Never below 0."""
        if self._task is None:
            return self.noise(given)[0]
        return min(max(self._mean_loss(given) - self._loss, 0.0), BROKEN)

    def noise(self, given: Sequence[Outputs]) -> tuple[float, str]:
        """Noise over signal of the worst output, and its name; where no output is float, the share that differs."""
        found = compare(self._expected, [_numbers(outputs) for outputs in given])
        if not found.comparable:
            return 1 - found.agreement, ""
        return float(min(10 ** (-max(found.sqnr_db, -300.0) / 10), BROKEN)), found.output

    def verdict(self, given: Sequence[Outputs]) -> Verdict:
        """Whether the budgets of noise and metric hold."""
        noise, output = self.noise(given)
        floor, most = self._options.floor_db, self._options.max_metric_drop
        holds = floor is None or noise <= 10 ** (-floor / 10)
        drop = None
        if self._task is not None and most is not None:
            drop = self._drop(given)
            holds = holds and drop <= most
        return Verdict(holds=holds, noise=noise, output=output, metric_drop=drop)

    def _drop(self, given: Sequence[Outputs]) -> float:
        """By how much the metric is worse: absolute for shares, relative to the original's for errors."""
        if self._task is None or self.metric is None:
            raise ValueError("there are no labels")
        after = self._predictions(given)
        scores = score(self._task, self._before, after, (self.metric,))
        if self.metric not in scores.compressed:
            return BROKEN
        before, now = scores.original[self.metric].value, scores.compressed[self.metric].value
        return before - now if self.metric in CLASSIFICATION else (now - before) / max(before, _TINY)

    def _predictions(self, given: Sequence[Outputs]) -> Predictions:
        if self._task is None:
            raise ValueError("there are no labels")
        found = Predictions(self._task)
        for outputs in given:
            found.add(outputs[self._task.output])
        return found

    def _mean_loss(self, given: Sequence[Outputs]) -> float:
        task = self._task
        if task is None:
            raise ValueError("there are no labels")
        values = np.concatenate([outputs[task.output] for outputs in given])[: len(task.labels)]
        if not np.isfinite(values).all():
            return BROKEN
        return _loss(task, values.astype(np.float64), probabilities=self._is_probability)


def _numbers(outputs: Outputs) -> Outputs:
    return {name: array for name, array in outputs.items() if array.dtype.kind in "biuf"}


def _are_probabilities(task: Task, expected: Sequence[Outputs]) -> bool:
    values = np.concatenate([outputs[task.output] for outputs in expected])
    inside = bool(((values >= 0) & (values <= 1)).all())
    if task.kind != "scores" or not inside:
        return inside
    return bool(np.allclose(values.sum(axis=task.class_axis or -1, dtype=np.float64), 1, atol=1e-2))


def _loss(task: Task, values: Array, *, probabilities: bool) -> float:
    """Cross entropy in nats, errors over the labels' energy, or the share of wrong classes."""
    if task.kind == "scores":
        return _cross_entropy(task, values, probabilities=probabilities)
    plain, labels = squeezed(values), task.labels
    if task.kind == "regression":
        return float(np.square(plain - labels).sum() / max(float(np.square(labels).sum()), _TINY))
    known = labels != IGNORED_LABEL
    if task.kind == "classes":
        return float((plain != labels)[known].mean())
    if probabilities:
        right = np.where(labels == 1, plain, 1 - plain)
        return float(-np.log(np.maximum(right, _TINY))[known].mean())
    return float(np.logaddexp(0, np.where(labels == 1, -plain, plain))[known].mean())


def _cross_entropy(task: Task, values: Array, *, probabilities: bool) -> float:
    scores = np.moveaxis(values, task.class_axis or -1, -1)
    if probabilities:
        logs = np.log(np.maximum(scores, _TINY))
    else:
        top = scores.max(axis=-1, keepdims=True)
        logs = scores - top - np.log(np.exp(scores - top).sum(axis=-1, keepdims=True))
    known = task.labels != IGNORED_LABEL
    place = np.where(known, task.labels, 0)[..., None]
    return float(-np.take_along_axis(logs, place, axis=-1)[..., 0][known].mean())


def refuse_unmeasurable(verdict: Verdict) -> None:
    """Refuses a model whose own outputs cannot be compared.

    Raises:
        NotApplicable: the original's answers are no numbers.
    """
    if verdict.noise > 0:
        raise NotApplicable(
            "the model gives different answers to the same inputs, so that no noise can be measured",
            where=verdict.output or None,
            hint="remove random operators, or use quantize_weights with a bound for each weight",
        )
